/*
 * Copyright (C) nginx-nango authors
 *
 * Every number of nango_status and what it is called.  Counters since start
 * are in shared memory; those of events, connections and subscribers are the
 * store's, exact and from one snapshot.
 */

#include "ngx_http_nango_status.h"


#define ngx_http_nango_count_fact(section, name, counter, metric, label,     \
    help)                                                                    \
    { section, name, NGX_HTTP_NANGO_FACT_COUNT,                              \
      offsetof(ngx_http_nango_status_t, counters)                            \
      + (counter) * sizeof(uint64_t), 0, metric, label, "counter", help }

#define ngx_http_nango_gauge_fact(section, name, kind, field, store, metric, \
    label, help)                                                             \
    { section, name, kind, offsetof(ngx_http_nango_status_t, field), store,  \
      metric, label, "gauge", help }

#define ngx_http_nango_event_fact(name, field, metric, help)                 \
    { "events", name, NGX_HTTP_NANGO_FACT_COUNT,                             \
      offsetof(ngx_http_nango_status_t, counts.field), 1, metric, NULL,      \
      "counter", help }

#define ngx_http_nango_env_fact(name, kind, field, store, metric, type,      \
    help)                                                                    \
    { "environments", name, kind,                                            \
      offsetof(ngx_http_nango_status_env_t, field), store, metric, NULL,     \
      type, help }

#define ngx_http_nango_sub_fact(name, kind, field, store, metric, type,      \
    help)                                                                    \
    { "subscribers", name, kind,                                             \
      offsetof(ngx_http_nango_status_sub_t, field), store, metric, NULL,     \
      type, help }


#define COUNT  NGX_HTTP_NANGO_FACT_COUNT
#define FLAG   NGX_HTTP_NANGO_FACT_FLAG
#define TIME   NGX_HTTP_NANGO_FACT_TIME


#define RECEIVED  "Webhooks that were received, by what came of them."
#define SESSIONS  "Sessions that were asked for, by what came of them."
#define REPAIRS   "Differences from Nango's own list that were repaired."
#define ENDED     "Attempts to deliver that ended, by what came of them."
#define STATUSES  "Connections in the state, by how they are."


const ngx_http_nango_fact_t  ngx_http_nango_facts[] = {

    ngx_http_nango_gauge_fact(NULL, "started_at", TIME, generation.started_at,
        0, "nango_start_time_seconds", NULL,
        "When the counters since start began."),
    ngx_http_nango_gauge_fact(NULL, "loaded_at", TIME, generation.loaded_at,
        0, "nango_config_load_time_seconds", NULL,
        "When the configuration was loaded."),
    ngx_http_nango_gauge_fact(NULL, "generation", COUNT, generation.number,
        0, "nango_config_generation", NULL,
        "Configurations that were loaded since start."),

    ngx_http_nango_gauge_fact("store", "open", FLAG, open, 0,
        "nango_store_open", NULL, "Whether the store can be read."),
    ngx_http_nango_gauge_fact("store", "troubled", FLAG, troubled, 0,
        "nango_store_troubled", NULL,
        "Whether the store could not be written or read lately."),
    ngx_http_nango_gauge_fact("store", "first", COUNT, usage.first, 1,
        "nango_log_first_sequence", NULL,
        "The oldest event in the log; 0: it is empty."),
    ngx_http_nango_gauge_fact("store", "last", COUNT, last, 1,
        "nango_log_last_sequence", NULL, "The newest event's sequence."),
    ngx_http_nango_gauge_fact("store", "applied", COUNT, counts.applied, 1,
        "nango_state_applied_sequence", NULL,
        "The last event that is in the state."),
    ngx_http_nango_gauge_fact("store", "lag", COUNT, lag, 1,
        "nango_state_lag_events", NULL,
        "Events in the log that are not in the state yet."),
    ngx_http_nango_gauge_fact("store", "events", COUNT, usage.events, 1,
        "nango_log_events", NULL, "Events in the log."),
    ngx_http_nango_gauge_fact("store", "bytes", COUNT, usage.log_bytes, 1,
        "nango_log_bytes", NULL, "What the events in the log take."),
    ngx_http_nango_gauge_fact("store", "size", COUNT, usage.log_size, 1,
        "nango_log_size_bytes", NULL,
        "What they may take; then webhooks are refused."),
    ngx_http_nango_gauge_fact("store", "state_bytes", COUNT,
        usage.state_bytes, 1, "nango_state_bytes", NULL,
        "What is in use of the state's file."),

    { "webhooks", "received", COUNT,
      offsetof(ngx_http_nango_status_t, received), 0,
      NULL, NULL, NULL, NULL },
    ngx_http_nango_count_fact("webhooks", "stored", NGX_NANGO_WEBHOOKS_STORED,
        "nango_webhooks_total", "result=\"stored\"", RECEIVED),
    ngx_http_nango_count_fact("webhooks", "duplicate",
        NGX_NANGO_WEBHOOKS_DUPLICATE,
        "nango_webhooks_total", "result=\"duplicate\"", RECEIVED),
    { "webhooks", "refused", COUNT,
      offsetof(ngx_http_nango_status_t, refused), 0,
      NULL, NULL, NULL, NULL },

    ngx_http_nango_count_fact("refused", "unsigned",
        NGX_NANGO_WEBHOOKS_UNSIGNED,
        "nango_webhooks_total", "result=\"unsigned\"", RECEIVED),
    ngx_http_nango_count_fact("refused", "forged", NGX_NANGO_WEBHOOKS_FORGED,
        "nango_webhooks_total", "result=\"forged\"", RECEIVED),
    ngx_http_nango_count_fact("refused", "unavailable",
        NGX_NANGO_WEBHOOKS_UNAVAILABLE,
        "nango_webhooks_total", "result=\"unavailable\"", RECEIVED),
    ngx_http_nango_count_fact("refused", "lost", NGX_NANGO_WEBHOOKS_LOST,
        "nango_webhooks_total", "result=\"lost\"", RECEIVED),
    ngx_http_nango_count_fact("refused", "too_large",
        NGX_NANGO_WEBHOOKS_TOO_LARGE,
        "nango_webhooks_total", "result=\"too_large\"", RECEIVED),
    ngx_http_nango_count_fact("refused", "unreadable",
        NGX_NANGO_WEBHOOKS_UNREADABLE,
        "nango_webhooks_total", "result=\"unreadable\"", RECEIVED),

    ngx_http_nango_count_fact("sessions", "issued", NGX_NANGO_SESSIONS_ISSUED,
        "nango_sessions_total", "result=\"issued\"", SESSIONS),
    ngx_http_nango_count_fact("sessions", "reused", NGX_NANGO_SESSIONS_REUSED,
        "nango_sessions_total", "result=\"reused\"", SESSIONS),
    ngx_http_nango_count_fact("sessions", "failed", NGX_NANGO_SESSIONS_FAILED,
        "nango_sessions_total", "result=\"failed\"", SESSIONS),

    ngx_http_nango_count_fact("repairs", "missing", NGX_NANGO_REPAIRS_MISSING,
        "nango_repairs_total", "kind=\"missing\"", REPAIRS),
    ngx_http_nango_count_fact("repairs", "vanished",
        NGX_NANGO_REPAIRS_VANISHED,
        "nango_repairs_total", "kind=\"vanished\"", REPAIRS),
    ngx_http_nango_count_fact("repairs", "status", NGX_NANGO_REPAIRS_STATUS,
        "nango_repairs_total", "kind=\"status\"", REPAIRS),
    ngx_http_nango_count_fact("repairs", "tags", NGX_NANGO_REPAIRS_TAGS,
        "nango_repairs_total", "kind=\"tags\"", REPAIRS),

    ngx_http_nango_count_fact("deliveries", "attempts",
        NGX_NANGO_DELIVERIES_ATTEMPTED,
        "nango_delivery_attempts_total", NULL,
        "Attempts to deliver that were begun."),
    ngx_http_nango_count_fact("deliveries", "delivered",
        NGX_NANGO_DELIVERIES_DELIVERED,
        "nango_deliveries_total", "result=\"delivered\"", ENDED),
    ngx_http_nango_count_fact("deliveries", "failed",
        NGX_NANGO_DELIVERIES_FAILED,
        "nango_deliveries_total", "result=\"failed\"", ENDED),

    ngx_http_nango_event_fact("folded", events,
        "nango_events_folded_total", "Events that were applied."),
    ngx_http_nango_event_fact("effective", effective,
        "nango_events_effective_total",
        "Of these, those that changed a connection."),
    ngx_http_nango_event_fact("ignored", ignored,
        "nango_events_ignored_total",
        "Of these, those that meant a connection and changed nothing."),
    ngx_http_nango_event_fact("not_understood", not_understood,
        "nango_events_not_understood_total",
        "Of these, those that could not be read."),
    ngx_http_nango_event_fact("missing", gaps,
        "nango_events_missing_total",
        "Sequences that were missing from the log."),

    ngx_http_nango_gauge_fact("connections", "valid", COUNT, counts.valid, 1,
        "nango_connections", "status=\"valid\"", STATUSES),
    ngx_http_nango_gauge_fact("connections", "invalid", COUNT, counts.invalid,
        1, "nango_connections", "status=\"invalid\"", STATUSES),
    ngx_http_nango_gauge_fact("connections", "deleted", COUNT,
        counts.tombstones, 1, "nango_connections", "status=\"deleted\"",
        STATUSES),

    { NULL, NULL, COUNT, 0, 0, NULL, NULL, NULL, NULL }
};


const ngx_http_nango_fact_t  ngx_http_nango_env_facts[] = {

    ngx_http_nango_env_fact("configured", FLAG, configured, 0,
        "nango_environment_configured", "gauge",
        "Whether the environment is in the configuration."),
    ngx_http_nango_env_fact("stored", COUNT, stored, 1,
        "nango_environment_events_total", "counter",
        "The environment's events that were applied."),
    ngx_http_nango_env_fact("pruned", COUNT, pruned, 1,
        "nango_environment_pruned_events_total", "counter",
        "Of these, those that are no longer in the log."),
    ngx_http_nango_env_fact("account_blocked", COUNT, account_blocked, 0,
        "nango_account_blocked_seconds", "gauge",
        "For how long nothing is sent to Nango, which said so."),
    ngx_http_nango_env_fact("account_low", FLAG, account_low, 0,
        "nango_account_low", "gauge",
        "Whether less than a quarter of the account's requests is left."),
    ngx_http_nango_env_fact("circuit_open", FLAG, circuit_open, 0,
        "nango_circuit_open", "gauge",
        "Whether Nango does not answer and is asked now and then only."),
    ngx_http_nango_env_fact("reconcile", COUNT, reconcile, 0,
        "nango_reconcile_interval_seconds", "gauge",
        "How often the connections are compared with Nango's; 0: never."),
    ngx_http_nango_env_fact("reconciled_at", TIME, reconciled_at, 0,
        "nango_reconciled_time_seconds", "gauge",
        "When the connections were last compared with Nango's."),

    { NULL, NULL, COUNT, 0, 0, NULL, NULL, NULL, NULL }
};


const ngx_http_nango_fact_t  ngx_http_nango_sub_facts[] = {

    ngx_http_nango_sub_fact("configured", FLAG, configured, 0,
        "nango_subscriber_configured", "gauge",
        "Whether the subscriber is in the configuration."),
    ngx_http_nango_sub_fact("known", FLAG, known, 0, NULL, NULL, NULL),
    ngx_http_nango_sub_fact("parked_at", TIME, ledger.parked_at, 1,
        NULL, NULL, NULL),
    ngx_http_nango_sub_fact("parked", FLAG, parked, 1,
        "nango_subscriber_parked", "gauge",
        "Whether it has said that it is gone, and gets nothing."),
    ngx_http_nango_sub_fact("created_at", TIME, ledger.created_at, 1,
        NULL, NULL, NULL),
    ngx_http_nango_sub_fact("cursor", COUNT, ledger.cursor, 1,
        "nango_subscriber_cursor_sequence", "gauge",
        "Up to which event all are settled or have a row."),

    ngx_http_nango_sub_fact("stored", COUNT, ledger.stored, 1,
        "nango_subscriber_stored_total", "counter",
        "Events since the first one of the subscriber: those delivered, "
        "skipped, dead, waiting and lost."),
    ngx_http_nango_sub_fact("delivered", COUNT, ledger.delivered, 1,
        "nango_subscriber_delivered_total", "counter",
        "Events that were delivered."),
    ngx_http_nango_sub_fact("skipped", COUNT, ledger.skipped, 1,
        "nango_subscriber_skipped_total", "counter",
        "Events that it does not want."),
    ngx_http_nango_sub_fact("dead", COUNT, ledger.dead, 1,
        "nango_subscriber_dead", "gauge",
        "Events that will not be tried again by themselves."),
    ngx_http_nango_sub_fact("waiting", COUNT, ledger.waiting, 1,
        "nango_subscriber_waiting", "gauge",
        "Events that are to be delivered."),
    ngx_http_nango_sub_fact("lost", COUNT, ledger.lost, 1,
        "nango_subscriber_lost_total", "counter",
        "Events that vanished with their log."),
    ngx_http_nango_sub_fact("rows", COUNT, ledger.rows, 1,
        "nango_subscriber_rows", "gauge",
        "Waiting events that have failed, or wait behind such."),
    ngx_http_nango_sub_fact("redelivered", COUNT, ledger.redelivered, 1,
        "nango_subscriber_redelivered_total", "counter",
        "Dead events that were put back by hand."),
    ngx_http_nango_sub_fact("oldest_at", TIME, ledger.oldest_at, 1,
        "nango_subscriber_oldest_waiting_time_seconds", "gauge",
        "When the oldest waiting event was received; 0: none waits."),

    ngx_http_nango_sub_fact("in_flight", COUNT, live.in_flight, 0,
        "nango_subscriber_in_flight", "gauge", "Deliveries on their way."),
    ngx_http_nango_sub_fact("attempts", COUNT, live.attempts, 0,
        "nango_subscriber_attempts_total", "counter",
        "Attempts since start."),
    ngx_http_nango_sub_fact("failed", COUNT, live.failed, 0,
        "nango_subscriber_failures_total", "counter",
        "Attempts since start that failed."),
    ngx_http_nango_sub_fact("down_since", TIME, live.down_since, 0,
        NULL, NULL, NULL),
    ngx_http_nango_sub_fact("down", FLAG, down, 0,
        "nango_subscriber_down", "gauge",
        "Whether it does not answer and is tried now and then only."),
    ngx_http_nango_sub_fact("success_at", TIME, live.success_at, 0,
        "nango_subscriber_last_success_time_seconds", "gauge",
        "When something was last delivered; 0: not since start."),
    ngx_http_nango_sub_fact("failure_at", TIME, live.failure_at, 0,
        "nango_subscriber_last_failure_time_seconds", "gauge",
        "When an attempt last failed; 0: not since start."),
    ngx_http_nango_sub_fact("last_status", COUNT, live.status, 0,
        NULL, NULL, NULL),

    { NULL, NULL, COUNT, 0, 0, NULL, NULL, NULL, NULL }
};


const char *
ngx_http_nango_trouble_word(nango_rc_e code)
{
    switch (code) {

    case NANGO_EFULL:
        return "full";

    case NANGO_EIO:
        return "io";

    case NANGO_ENOMEM:
        return "memory";

    case NANGO_EFOREIGN:
        return "foreign";

    case NANGO_EVERSION:
        return "version";

    case NANGO_EDAMAGED:
        return "damaged";

    default:
        return "closed";
    }
}


const char *
ngx_http_nango_delivery_word(ngx_nango_delivery_error_e error)
{
    static const char  *words[] = {
        "none", "resolve", "connect", "tls", "timeout", "cut", "status",
        "local"
    };

    return words[error];
}
