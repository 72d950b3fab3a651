"""Logs: a sentence and structured fields, one JSON object a line on stderr.

Bind `invocation_id`, `function_id`, `attempt` and `worker_id` where they are
known, with `structlog.contextvars.bound_contextvars`, and every line below
carries them.
"""

import logging
import sys

import structlog


def configure_logging(level: str = "info", log_format: str = "json", **fields: str) -> None:
    """Set logging up for this process; `fields` (such as `part`) go with every line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {**fields, **event},
    ]
    renderer: structlog.typing.Processor
    if log_format == "json":
        shared.append(structlog.processors.dict_tracebacks)
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log by the standard library: the same form, and nothing chatty.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
