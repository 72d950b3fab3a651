"""Statistics of a measured series, and what stands out of it.

Payload: a CSV as text, whose first column says when and whose second says how much
(or `{"csv": …, "threshold": 6}`). Stands out what is further from the median than
`threshold` times the median deviation, which single outliers do not move.
"""

import csv
import io
import statistics

DEFAULT_THRESHOLD = 6.0
SHOWN = 5


def handler(payload, context):
    if isinstance(payload, str):
        payload = {"csv": payload}
    column, series = read(payload["csv"])
    print(f"{len(series)} values of {column}")
    values = [value for _, value in series]
    median = statistics.median(values)
    deviation = statistics.median(abs(value - median) for value in values)
    limit = payload.get("threshold", DEFAULT_THRESHOLD) * deviation
    anomalies = [(when, value) for when, value in series if abs(value - median) > limit]
    anomalies.sort(key=lambda one: abs(one[1] - median), reverse=True)
    return {
        "column": column,
        "count": len(values),
        "median": median,
        "p99": statistics.quantiles(values, n=100)[98],
        "max": max(values),
        "anomaly_count": len(anomalies),
        "anomalies": [{"when": when, "value": value} for when, value in anomalies[:SHOWN]],
    }


def read(text):
    rows = csv.reader(io.StringIO(text))
    heading = next(rows, None)
    if heading is None or len(heading) < 2:
        raise ValueError("the CSV needs a heading of two columns: when, and how much")
    series = []
    for row in rows:
        try:
            series.append((row[0], float(row[1])))
        except (IndexError, ValueError):
            raise ValueError(f"line {rows.line_num} is no measurement: {row}") from None
    if len(series) < 2:
        raise ValueError("a statistic needs two measurements at least")
    return heading[1], series
