"""The statements that change a record's state, each for many rows at once.

    (accept)--> pending, or running where a worker was found before
    pending --grant--> running --ungrant--> pending
                               --conclude--> completed | failed | timed_out
                               --conclude--> pending   where it failed and is tried again
                               --lose-----> pending    while a start is left
                                            dead_lettered otherwise
    pending --expire--> dead_lettered
    pending, running --cancel--> cancelled

Each says in its condition which state it leaves; terminal ones are in none. Rows are
locked in the order of their ids first, so that statements of several replicas never
wait for each other in a circle. A start that is over gets its one row in `attempts`
by the same statement that ends it.

The two of every call name the partition that their records are in: of the whole table
PostgreSQL would lock and set up every day's, each time.
"""

from functools import lru_cache

COLUMNS = """id, function_id, function_name, function_version, status, payload, payload_type,
  timeout_ms, labels, attempt, due_at, worker_id, grant_id, result, result_type, error, metrics,
  runtime_image, logs_truncated, created_at, started_at, completed_at, request_id, losses, laned,
  redrive_of, replay_of, schedule_id, payload_blob, result_blob"""


def columns(table: str) -> str:
    """The columns of a record, as those of `table`."""
    return ", ".join(f"{table}.{name.strip()}" for name in COLUMNS.split(","))


# A request id that was used is found again for a day; then it may be used anew.
REQUEST_ID_AGE = "interval '24 hours'"

ACCEPT = f"""
WITH wanted AS (
  SELECT wanted.*, asked, now, greatest(asked, not_before) AS due_at,
    lanes.function_id IS NOT NULL AS laned
  FROM unnest(%(ids)s::uuid[], %(function_ids)s::uuid[], %(function_names)s::text[],
    %(function_versions)s::int[], %(payloads)s::bytea[], %(payload_types)s::text[],
    %(timeouts_ms)s::int[], %(labels)s::text[], %(retry_policies)s::text[],
    %(max_attempts)s::int[], %(max_ages_s)s::float8[], %(not_befores)s::timestamptz[],
    %(request_ids)s::text[], %(digests)s::bytea[], %(redrives)s::uuid[], %(replays)s::uuid[],
    %(schedules)s::uuid[], %(helds_s)s::float8[], %(workers)s::uuid[], %(boots)s::uuid[],
    %(grants)s::uuid[], %(payload_blobs)s::text[]) AS wanted (
    id, function_id, function_name, function_version, payload, payload_type, timeout_ms, labels,
    retry_policy, max_attempts, max_age_s, not_before, request_id, digest, redrive_of, replay_of,
    schedule_id, held_s, worker, boot, grant_id, payload_blob)
  CROSS JOIN clock_timestamp() AS now
  CROSS JOIN LATERAL (SELECT now - held_s * interval '1 second' AS asked) AS since
  LEFT JOIN lanes ON lanes.function_id = wanted.function_id),
-- Nobody pushes past what has waited longer: the feeder offers in order.
ready AS MATERIALIZED (
  SELECT wanted.*, %(offer)s AND NOT laned AND due_at <= now AND NOT EXISTS (SELECT 1
    FROM invocations WHERE status = 'pending' AND offered_at IS NULL AND NOT laned
      AND due_at <= now) AS is_next
  FROM wanted),
settled AS MATERIALIZED (
  SELECT ready.*, is_next AND EXISTS (SELECT 1 FROM workers
    WHERE boot_id = ready.boot AND lost_at IS NULL) AS is_granted
  FROM ready),
keyed AS (
  INSERT INTO request_ids AS known (function_id, request_id, invocation_id, digest, created_at)
  SELECT function_id, request_id, id, digest, now FROM wanted WHERE request_id IS NOT NULL
  ORDER BY function_id, request_id
  ON CONFLICT (function_id, request_id) DO UPDATE SET invocation_id = excluded.invocation_id,
    digest = excluded.digest, created_at = excluded.created_at
  WHERE known.created_at < excluded.created_at - {REQUEST_ID_AGE}
  RETURNING invocation_id)
INSERT INTO invocations (id, function_id, function_name, function_version, status, payload,
  payload_type, timeout_ms, labels, retry_policy, attempt_limit, created_at, due_at, expires_at,
  offered_at, laned, request_id, redrive_of, replay_of, schedule_id, attempt, worker_id,
  worker_boot, grant_id, started_at, payload_blob)
SELECT id, function_id, function_name, function_version,
  CASE WHEN is_granted THEN 'running' ELSE 'pending' END, payload, payload_type,
  -- One start in reserve for a lost worker.
  timeout_ms, labels::jsonb, retry_policy::jsonb, max_attempts + 1, asked, due_at,
  due_at + max_age_s * interval '1 second', CASE WHEN is_next THEN now END,
  laned, request_id, redrive_of, replay_of, schedule_id, is_granted::int,
  CASE WHEN is_granted THEN worker END, CASE WHEN is_granted THEN boot END,
  CASE WHEN is_granted THEN grant_id END, CASE WHEN is_granted THEN now END,
  payload_blob::jsonb
FROM settled WHERE request_id IS NULL OR id IN (SELECT invocation_id FROM keyed)
ORDER BY id
ON CONFLICT (id) DO NOTHING
RETURNING {COLUMNS}, offered_at IS NOT NULL AND status = 'pending' AS offered"""

# What was accepted before, by the id or under the request id, and the digest of it.
ACCEPTED_BEFORE = f"""
SELECT {columns("known")}, known.id AS wanted_id, NULL::bytea AS digest
FROM invocations AS known WHERE known.id = ANY(%(ids)s::uuid[])
UNION ALL
SELECT {columns("known")}, wanted.id, keys.digest
FROM unnest(%(ids)s::uuid[], %(function_ids)s::uuid[], %(request_ids)s::text[])
  AS wanted (id, function_id, request_id)
JOIN request_ids AS keys USING (function_id, request_id)
JOIN invocations AS known ON known.id = keys.invocation_id AND known.id <> wanted.id"""

_LIVING = "EXISTS (SELECT 1 FROM workers WHERE boot_id = asked.boot AND lost_at IS NULL)"
_GRANTED = """status = 'running', attempt = attempt + 1, worker_id = asked.worker,
  worker_boot = asked.boot, grant_id = asked.grant_id, started_at = clock_timestamp(),
  offered_at = coalesce(offered_at, clock_timestamp())"""
_GRANTABLE = """status = 'pending' AND due_at <= clock_timestamp()
  AND expires_at > clock_timestamp() AND attempt < attempt_limit"""


@lru_cache(maxsize=16)
def grant(table: str) -> str:
    """Grants starts of records in `table`."""
    return f"""
WITH asked AS (SELECT * FROM unnest(%(ids)s::uuid[], %(workers)s::uuid[], %(boots)s::uuid[],
  %(grants)s::uuid[]) AS asked (asked_id, worker, boot, grant_id)),
held AS (SELECT id FROM {table} WHERE id = ANY(%(ids)s::uuid[]) AND status = 'pending'
  ORDER BY id FOR UPDATE)
UPDATE {table} AS invocations SET {_GRANTED}
FROM asked WHERE id = asked_id AND id IN (SELECT id FROM held) AND {_GRANTABLE} AND {_LIVING}
  AND id = ANY(%(ids)s::uuid[]) -- which leaves the partitions alone that have none of them
  AND NOT EXISTS (SELECT 1 FROM lanes WHERE lanes.function_id = invocations.function_id)
RETURNING {columns("invocations")}"""


# One row, by who holds the lane's lock.
GRANT_IN_LANE = f"""
UPDATE invocations SET {_GRANTED}, laned = true
FROM (SELECT %(id)s::uuid AS asked_id, %(worker)s::uuid AS worker, %(boot)s::uuid AS boot,
  %(grant)s::uuid AS grant_id) AS asked
WHERE id = asked_id AND {_GRANTABLE} AND {_LIVING}
  AND NOT EXISTS (SELECT 1 FROM lanes WHERE lanes.function_id = invocations.function_id
    AND (paused_at IS NOT NULL OR max_concurrency <= (SELECT count(*) FROM invocations AS beside
      WHERE beside.function_id = invocations.function_id AND beside.laned
        AND beside.offered_at IS NOT NULL AND beside.status = 'running')))
RETURNING {columns("invocations")}"""

# It was offered before its function had a lane, or there is no room in it now.
SEND_BACK_TO_LANE = """
UPDATE invocations SET laned = true, offered_at = NULL
WHERE id = %(id)s AND status = 'pending' AND due_at <= clock_timestamp()"""

# What was granted unasked and cannot be run there: as if it had not been granted. The grant
# is compared, so what was granted anew meanwhile stays.
UNGRANT = """
UPDATE invocations SET status = 'pending', attempt = attempt - 1, worker_id = NULL,
  worker_boot = NULL, grant_id = NULL, started_at = NULL, offered_at = NULL
WHERE id = %(id)s AND grant_id = %(grant)s AND status = 'running'"""

# Of what was not granted: who holds it, and whether it is a matter of its lane.
LOOK = f"""
SELECT {COLUMNS}, worker_boot, status = 'pending' AND EXISTS (SELECT 1 FROM lanes
  WHERE lanes.function_id = invocations.function_id) AS in_lane
FROM invocations WHERE id = ANY(%(ids)s::uuid[])"""


# As they were before: what the row of `attempts` needs and the update may change.
def _held(table: str) -> str:
    return f"""held AS (SELECT id AS held_id, due_at AS was_due, offered_at AS was_offered,
    status AS was_status, worker_boot AS was_boot
  FROM {table} WHERE id = ANY(%(ids)s::uuid[]) AND status IN ('running', 'pending')
  ORDER BY id FOR UPDATE)"""


_HELD = _held("invocations")
_CLOSED_COLUMNS = """invocation_id, attempt, outcome, worker_id, worker_boot, due_at, offered_at,
  started_at, ended_at, error, metrics, runtime_image"""
# Only what was taken for lost can turn out to have ended otherwise.
_CLOSED_AGAIN = """ON CONFLICT (invocation_id, attempt) DO UPDATE SET outcome = excluded.outcome,
  ended_at = excluded.ended_at, error = excluded.error, metrics = excluded.metrics,
  runtime_image = excluded.runtime_image
  WHERE attempts.outcome IN ('lost', 'abandoned')"""

# Which of its own failures a function is started again after.
DEFAULT_RETRY_ON = ("FUNCTION_ERROR", "FUNCTION_CRASHED", "OUT_OF_MEMORY", "TIMEOUT")

_AGAIN = """(told.status IN ('failed', 'timed_out') AND attempt < attempt_limit
  AND failures + 1 < coalesce((retry_policy ->> 'max_attempts')::int, 1)
  AND retry_policy -> 'retry_on' ? (told.error ->> 'code'))"""


def _told_metrics(due: str, started: str) -> str:
    """What the worker told, and what of the time between these columns and now it did not."""
    worker = {
        name: f"coalesce((told.metrics ->> '{name}_s')::float8, 0)"
        for name in ("assigned", "startup", "run")
    }
    return f"""told.metrics || jsonb_build_object(
      'queued_s', greatest(extract(epoch FROM {started} - {due}) - {worker["assigned"]}, 0),
      'report_s', greatest(extract(epoch FROM now - {started}) - {worker["startup"]}
        - {worker["run"]}, 0))"""


@lru_cache(maxsize=16)
def conclude(table: str) -> str:
    """Writes verdicts on records in `table`.

    On 'pending' ones too: after the end of a lease a late verdict counts until the next grant.
    """
    return f"""
WITH told AS (
  SELECT told_id, told_attempt, boot, status, result, result_type, error::jsonb AS error,
    metrics::jsonb AS metrics, runtime_image, logs_truncated, result_blob::jsonb AS result_blob,
    now
  FROM unnest(%(ids)s::uuid[], %(attempts)s::int[], %(boots)s::uuid[], %(statuses)s::text[],
    %(results)s::bytea[], %(result_types)s::text[], %(errors)s::text[], %(metrics)s::text[],
    %(runtime_images)s::text[], %(logs_truncated)s::bool[], %(result_blobs)s::text[]) AS told (
    told_id, told_attempt, boot, status, result, result_type, error, metrics, runtime_image,
    logs_truncated, result_blob),
    clock_timestamp() AS now),
{_held(table)},
ended AS (
  UPDATE {table} AS invocations SET
    status = CASE WHEN {_AGAIN} THEN 'pending' ELSE told.status END,
    failures = failures + (told.status <> 'completed')::int,
    due_at = CASE WHEN {_AGAIN} THEN now + least((retry_policy ->> 'max_backoff_ms')::float8,
      (retry_policy ->> 'initial_backoff_ms')::float8 * 2 ^ failures)
      * (1 - random() / 2) * interval '1 millisecond' ELSE due_at END,
    result = told.result, result_type = told.result_type, result_blob = told.result_blob,
    error = CASE WHEN NOT {_AGAIN} THEN told.error END,
    runtime_image = told.runtime_image, logs_truncated = told.logs_truncated,
    metrics = CASE WHEN NOT {_AGAIN} THEN {_told_metrics("due_at", "started_at")}
      || jsonb_build_object('duration_s', extract(epoch FROM now - created_at)) END,
    completed_at = CASE WHEN NOT {_AGAIN} THEN now END, worker_boot = NULL, offered_at = NULL
  FROM told, held
  WHERE id = told_id AND id = held_id AND attempt = told_attempt AND worker_boot = told.boot
    AND invocations.status IN ('running', 'pending') AND id = ANY(%(ids)s::uuid[])
  RETURNING {columns("invocations")}),
closed AS (
  INSERT INTO attempts ({_CLOSED_COLUMNS})
  SELECT ended.id, told_attempt, told.status, ended.worker_id, told.boot, was_due, was_offered,
    ended.started_at, now, told.error, {_told_metrics("was_due", "ended.started_at")},
    told.runtime_image
  FROM ended JOIN told ON told_id = ended.id JOIN held ON held_id = ended.id
  {_CLOSED_AGAIN})
SELECT {COLUMNS} FROM ended"""


# A second loss, while it ran alone on its worker, convicts it; an orderly return does not.
_STAYS = """(attempt < attempt_limit
  AND coalesce((retry_policy ->> 'retry_lost_worker')::bool, true)
  AND (losses = 0 OR NOT %(lost)s))"""

LOSE = f"""
WITH {_HELD},
ended AS (
  UPDATE invocations SET losses = losses + %(lost)s::bool::int, offered_at = NULL,
    status = CASE WHEN {_STAYS} THEN 'pending' ELSE 'dead_lettered' END,
    due_at = CASE WHEN {_STAYS}
      THEN now + %(backoff_s)s * 2 ^ (attempt - 1) * interval '1 second' ELSE due_at END,
    completed_at = CASE WHEN {_STAYS} THEN NULL ELSE now END,
    error = CASE WHEN {_STAYS} THEN NULL ELSE %(error)s::jsonb END,
    metrics = CASE WHEN {_STAYS} THEN NULL
      ELSE jsonb_build_object('duration_s', extract(epoch FROM now - created_at)) END
  FROM held, clock_timestamp() AS now
  WHERE id = held_id AND status = 'running' AND worker_boot = %(boot)s::uuid
    AND (%(attempt)s::int IS NULL OR attempt = %(attempt)s)
  RETURNING {columns("invocations")}, was_due, was_offered, now),
closed AS (
  INSERT INTO attempts ({_CLOSED_COLUMNS})
  SELECT id, attempt, CASE WHEN %(lost)s THEN 'lost' ELSE 'abandoned' END, worker_id,
    %(boot)s::uuid, was_due, was_offered, started_at, now, %(error)s::jsonb, NULL, NULL
  FROM ended ON CONFLICT DO NOTHING)
SELECT {COLUMNS} FROM ended"""

CANCEL = f"""
WITH {_HELD},
ended AS (
  UPDATE invocations SET status = 'cancelled', completed_at = now, worker_boot = NULL,
    offered_at = NULL, result = NULL, error = NULL,
    metrics = jsonb_build_object('duration_s', extract(epoch FROM now - created_at))
  FROM held, clock_timestamp() AS now
  WHERE id = held_id AND status IN ('pending', 'running')
  RETURNING {columns("invocations")}, was_due, was_offered, was_status, was_boot, now),
closed AS (
  INSERT INTO attempts ({_CLOSED_COLUMNS})
  SELECT id, attempt, 'cancelled', worker_id, was_boot, was_due, was_offered, started_at, now,
    NULL, NULL, NULL
  FROM ended WHERE was_status = 'running' ON CONFLICT DO NOTHING)
SELECT {COLUMNS}, CASE WHEN was_status = 'running' THEN was_boot END AS ran_on FROM ended"""

EXPIRE = f"""
WITH old AS (SELECT id AS old_id FROM invocations
  WHERE status = 'pending' AND expires_at <= clock_timestamp()
  ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE invocations SET status = 'dead_lettered', completed_at = now, offered_at = NULL,
  worker_boot = NULL, error = %(error)s::jsonb,
  metrics = jsonb_build_object('duration_s', extract(epoch FROM now - created_at))
FROM old, clock_timestamp() AS now
WHERE id = old_id AND status = 'pending' AND expires_at <= now
RETURNING {columns("invocations")}"""
