/*
 * Copyright (C) nginx-nango authors
 *
 * What all workers share: counters since start, what each Nango account still
 * allows, and recent session tokens.
 *
 * Fixed arrays of words and slots, laid out once.  No tree and no allocation
 * after that, so a worker that is killed in any instruction leaves nothing
 * that others could trip over: words are written atomically, slots carry a
 * checksum.  Nothing here is needed to be right; what has to be exact is in
 * the store.
 */

#ifndef _NGX_NANGO_SHARED_H_INCLUDED_
#define _NGX_NANGO_SHARED_H_INCLUDED_


#include "ngx_nango.h"


typedef enum {
    NGX_NANGO_WEBHOOKS_STORED = 0,
    NGX_NANGO_WEBHOOKS_DUPLICATE,
    NGX_NANGO_WEBHOOKS_UNSIGNED,        /* no or malformed signature header */
    NGX_NANGO_WEBHOOKS_FORGED,          /* a signature that verifies nothing */
    NGX_NANGO_WEBHOOKS_UNAVAILABLE,     /* 503 */
    NGX_NANGO_WEBHOOKS_LOST,            /* answered by somebody else */
    NGX_NANGO_WEBHOOKS_TOO_LARGE,       /* 413 */
    NGX_NANGO_WEBHOOKS_UNREADABLE,      /* 400: no body that HTTP knows */
    NGX_NANGO_SESSIONS_ISSUED,
    NGX_NANGO_SESSIONS_REUSED,
    NGX_NANGO_SESSIONS_FAILED,
    NGX_NANGO_REPAIRS_MISSING,
    NGX_NANGO_REPAIRS_VANISHED,
    NGX_NANGO_REPAIRS_STATUS,
    NGX_NANGO_REPAIRS_TAGS,
    NGX_NANGO_DELIVERIES_ATTEMPTED,
    NGX_NANGO_DELIVERIES_DELIVERED,
    NGX_NANGO_DELIVERIES_FAILED,
    NGX_NANGO_COUNTERS
} ngx_nango_counter_e;


/* More than that have no circuit, and are not compared with Nango. */
#define NGX_NANGO_ENVIRONMENTS        256

/* A session's name and answer; see ngx_nango_session_find(). */
#define NGX_NANGO_SESSION_KEY_LEN     32
#define NGX_NANGO_SESSION_ANSWER_MAX  952

/* How long one is used again at most, in seconds. */
#define NGX_NANGO_SESSION_LONGEST     (20 * 60)


/*
 * Adds the zone to the configuration.  The zone's name carries the version of
 * its layout, so a new binary never reads what an old one wrote differently.
 */
ngx_int_t ngx_nango_shared_add(ngx_conf_t *cf, void *tag);

/* All of these do nothing, or find nothing, without a zone. */

/*
 * For init_module, once for each configuration that is loaded.  Since start:
 * how many were, and when, in ms of ngx_nango_now(), the zone was made, which
 * is when its counters began, and the last one was loaded.
 */
void ngx_nango_generation_begin(void);

typedef struct {
    uint64_t                    number;
    uint64_t                    started_at;
    uint64_t                    loaded_at;
} ngx_nango_generation_t;

void ngx_nango_generation(ngx_nango_generation_t *generation);

/* 1 for the first of a generation's workers that asks. */
ngx_uint_t ngx_nango_generation_first(void);

void ngx_nango_count(ngx_nango_counter_e counter);
uint64_t ngx_nango_counted(ngx_nango_counter_e counter);


/*
 * Nango's limit is per account: no request is sent for the account's
 * environments until the time is over.  Seconds left, 0: go ahead.
 */
time_t ngx_nango_account_blocked(ngx_str_t *account);
void ngx_nango_account_block(ngx_str_t *account, time_t seconds);

/*
 * After a 429: blocks the account for as long as it said (-1: it did not),
 * within bounds, and logs it.  Returns the seconds.
 */
time_t ngx_nango_account_limited(ngx_str_t *account, time_t retry_after,
    ngx_log_t *log);


/*
 * What Nango's last reply said of the account's budget: so many requests are
 * left of limit for reset more seconds.  Low: less than a quarter is left, and
 * what is not urgent waits.
 */
void ngx_nango_account_budget(ngx_str_t *account, ngx_uint_t limit,
    ngx_uint_t remaining, time_t reset);
ngx_uint_t ngx_nango_account_low(ngx_str_t *account);

/*
 * The circuit of an environment.  After NGX_NANGO_CIRCUIT failures in a row it
 * is open for a short time, twice as long after each further one: NGX_DECLINED,
 * Nango is not to be asked.  Then one request at a time is let through to see,
 * whose failing is known after timeout ms at the latest.  NGX_OK: go ahead, and
 * tell what came of it; closing it is logged as well as opening.  _give_up() is
 * for what came of nothing, and says nothing of Nango: the next one may look.
 */
#define NGX_NANGO_CIRCUIT  5

ngx_int_t ngx_nango_circuit_enter(u_char *key, ngx_msec_t timeout);
void ngx_nango_circuit_leave(u_char *key, ngx_uint_t failed, ngx_str_t *name,
    ngx_log_t *log);
void ngx_nango_circuit_give_up(u_char *key);
ngx_uint_t ngx_nango_circuit_open(u_char *key);

/*
 * When the last run of the environment's reconciliation ended, whatever came of
 * it, or rather when the time until the next began; and when the environment
 * was last compared and made as Nango's list was.  Both in ms of
 * ngx_nango_now(), 0: never, NULL: not to be known.  Its key is random-looking.
 */
ngx_atomic_t *ngx_nango_reconciled(u_char *key);
ngx_atomic_t *ngx_nango_compared(u_char *key);

/* All environments' runs are due.  On any thread. */
void ngx_nango_reconciled_never(void);

/*
 * How delivering to a subscriber goes: counts since start, and what its last
 * attempts came to.  For people and their alarms; what has to be exact is the
 * store's ledger.  Written by the leader, read by anybody, each word whole.
 */
typedef enum {
    NGX_NANGO_DELIVERY_NONE = 0,        /* no error */
    NGX_NANGO_DELIVERY_RESOLVE,         /* its host's name is not known */
    NGX_NANGO_DELIVERY_CONNECT,
    NGX_NANGO_DELIVERY_TLS,
    NGX_NANGO_DELIVERY_TIMEOUT,
    NGX_NANGO_DELIVERY_CUT,             /* before the whole answer was there */
    NGX_NANGO_DELIVERY_STATUS,          /* an answer other than 2xx */
    NGX_NANGO_DELIVERY_LOCAL,           /* no memory, an unreadable body */
    NGX_NANGO_DELIVERY_ERRORS
} ngx_nango_delivery_error_e;

/* Times in ms of ngx_nango_now(), 0: never. */
typedef struct {
    uint64_t                    in_flight;
    uint64_t                    attempts;
    uint64_t                    delivered;
    uint64_t                    failed;
    uint64_t                    down_since;
    uint64_t                    success_at;
    uint64_t                    failure_at;
    uint64_t                    status;     /* the last failure's, 0: none */
    ngx_nango_delivery_error_e  error;      /* of the last failure */
} ngx_nango_delivery_state_t;

/*
 * key is nango_subscriber_key().  in_flight is how many are on their way now,
 * this one included when it starts and no longer when it has ended: who leads
 * anew, or leads no longer, says 0.
 */
void ngx_nango_delivery_started(u_char *key, ngx_uint_t in_flight);
void ngx_nango_delivery_ended(u_char *key, ngx_uint_t in_flight,
    ngx_nango_delivery_error_e error, ngx_uint_t status);
void ngx_nango_delivery_in_flight(u_char *key, ngx_uint_t in_flight);

/* Since when nothing is sent to it but probes; 0: it is up. */
void ngx_nango_delivery_down(u_char *key, uint64_t since);

/* All 0 for one that nothing was ever said of. */
void ngx_nango_delivery_state(u_char *key, ngx_nango_delivery_state_t *state);


/*
 * A bucket that empties by one each interval (ms) and holds burst more: 0, or
 * in how many ms there is room again.  key is NANGO_KEY_LEN random-looking
 * bytes.  Buckets are of a fixed number; the one that is nearest to being empty
 * makes room, so a limit can be forgotten early and never be imposed wrongly.
 */
ngx_msec_t ngx_nango_limit(u_char *key, ngx_msec_t interval,
    ngx_uint_t burst);


/*
 * A slot's holder is the pid of the worker that reads or writes it.  1: taken;
 * 0: another has it, whom nobody waits for.  From one that is gone it is taken
 * over, and a checksum has to tell whether its content is whole.
 */
ngx_uint_t ngx_nango_slot_take(ngx_atomic_t *slot);
void ngx_nango_slot_leave(ngx_atomic_t *slot);


/*
 * The answer to a session that was stored under the same key not longer than
 * its lifetime ago.  NGX_OK: copied to answer, which takes
 * NGX_NANGO_SESSION_ANSWER_MAX bytes.  NGX_DECLINED: not there, too old, or
 * just being written by another worker; nobody waits.
 */
ngx_int_t ngx_nango_session_find(u_char *key, u_char *answer, size_t *len);
void ngx_nango_session_store(u_char *key, u_char *answer, size_t len,
    time_t lifetime);


/*
 * The last sequence in the state as the leader last saw it: a hint for the
 * committers' back-pressure.  And until when (in ms of ngx_nango_now()) some
 * request waits for the fold: the leader does not gather then.
 */
uint64_t ngx_nango_applied_hint(void);
void ngx_nango_set_applied_hint(uint64_t sequence);
ngx_uint_t ngx_nango_fold_wanted(void);
void ngx_nango_want_fold(void);

/* The same for those who wait for changes: it gathers for a short time only. */
ngx_uint_t ngx_nango_fold_watched(void);
void ngx_nango_watch_fold(void);


#endif /* _NGX_NANGO_SHARED_H_INCLUDED_ */
