/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_shared.h.  The zone's memory is one structure, allocated once
 * from nginx's slab and kept over reloads by its name.
 */

#include "ngx_nango_shared.h"

#include <signal.h>


#define NGX_NANGO_ACCOUNTS       64
#define NGX_NANGO_SUBSCRIBERS    1024

/* ms; two seconds after some more failures */
#define NGX_NANGO_CIRCUIT_OPEN   250

/* Who was let through is waited for no longer than that. */
#define NGX_NANGO_CIRCUIT_LONGEST  3600000

#define NGX_NANGO_SESSION_SETS   1024
#define NGX_NANGO_SESSION_WAYS   4

/* Nango's limit is by the minute; one odd value must not stop an account. */
#define NGX_NANGO_BLOCK_MAX      3600

/* Seconds, as "low" is kept. */
#define NGX_NANGO_LOW_MAX        60

#define NGX_NANGO_LIMIT_SETS     2048
#define NGX_NANGO_LIMIT_WAYS     8

/* A word: a part of the key above, ms of ngx_current_msec below. */
#define NGX_NANGO_LIMIT_TIME     (((uint64_t) 1 << 40) - 1)

#define NGX_NANGO_ZONE_SIZE      (8 * 1024 * 1024)

/* Hints between threads; they say nothing of any other memory. */

#define ngx_nango_shared_get(field)                                          \
    __atomic_load_n(&ngx_nango_shared->field, __ATOMIC_RELAXED)

#define ngx_nango_shared_set(field, value)                                   \
    __atomic_store_n(&ngx_nango_shared->field, (ngx_atomic_uint_t) (value),  \
                     __ATOMIC_RELAXED)


typedef struct {
    ngx_atomic_t              name;         /* hash, 0: free */
    ngx_atomic_t              blocked;      /* until, seconds since 1970 */
    ngx_atomic_t              low;          /* the same */
} ngx_nango_account_slot_t;


typedef struct {
    ngx_atomic_t              name;         /* of the key, 0: free */
    ngx_atomic_t              reconciled;   /* ms since 1970 */
    ngx_atomic_t              compared;     /* the same */
    ngx_atomic_t              failures;     /* in a row */
    ngx_atomic_t              closed;       /* until, ms since 1970 */
} ngx_nango_environment_slot_t;


typedef struct {
    ngx_atomic_t              name;         /* of the key, 0: free */
    ngx_atomic_t              in_flight;
    ngx_atomic_t              attempts;
    ngx_atomic_t              delivered;
    ngx_atomic_t              failed;
    ngx_atomic_t              down_since;   /* ms since 1970, like the two */
    ngx_atomic_t              success_at;
    ngx_atomic_t              failure_at;
    ngx_atomic_t              error;        /* and the status above 8 bits */
} ngx_nango_subscriber_slot_t;


/*
 * holder is the pid of the worker that reads or writes the slot.  Nobody waits
 * for it; only if that process is gone is the slot taken over, and then the
 * checksum tells whether its content is whole.
 */
typedef struct {
    ngx_atomic_t              holder;
    uint32_t                  crc;
    uint32_t                  len;
    uint64_t                  expires;      /* ms since 1970 */
    u_char                    key[NGX_NANGO_SESSION_KEY_LEN];
    u_char                    answer[NGX_NANGO_SESSION_ANSWER_MAX];
} ngx_nango_session_slot_t;


typedef struct {
    ngx_atomic_t              counters[NGX_NANGO_COUNTERS];
    ngx_atomic_t              started_at;
    ngx_atomic_t              loaded_at;
    ngx_atomic_t              generation;
    ngx_atomic_t              first;        /* generation that has asked */
    ngx_atomic_t              applied;
    ngx_atomic_t              wanted;
    ngx_atomic_t              watched;
    ngx_nango_account_slot_t  accounts[NGX_NANGO_ACCOUNTS];
    ngx_nango_environment_slot_t  environments[NGX_NANGO_ENVIRONMENTS];
    ngx_nango_subscriber_slot_t  subscribers[NGX_NANGO_SUBSCRIBERS];
    ngx_atomic_t              limits[NGX_NANGO_LIMIT_SETS
                                     * NGX_NANGO_LIMIT_WAYS];
    ngx_nango_session_slot_t  sessions[NGX_NANGO_SESSION_SETS
                                       * NGX_NANGO_SESSION_WAYS];
} ngx_nango_shared_t;


static ngx_int_t ngx_nango_shared_init(ngx_shm_zone_t *zone, void *data);
static ngx_nango_account_slot_t *ngx_nango_account(ngx_str_t *account);
static ngx_nango_environment_slot_t *ngx_nango_environment_slot(u_char *key);
static ngx_nango_subscriber_slot_t *ngx_nango_subscriber_slot(u_char *key,
    ngx_uint_t take);
static ngx_uint_t ngx_nango_ahead(uint64_t time, uint64_t now,
    uint64_t longest);
static uint32_t ngx_nango_slot_crc(ngx_nango_session_slot_t *slot);


static ngx_nango_shared_t  *ngx_nango_shared;


ngx_int_t
ngx_nango_shared_add(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    static ngx_str_t  name = ngx_string("nango:4");

    zone = ngx_shared_memory_add(cf, &name, NGX_NANGO_ZONE_SIZE, tag);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_nango_shared_init;

    return NGX_OK;
}


static ngx_int_t
ngx_nango_shared_init(ngx_shm_zone_t *zone, void *data)
{
    ngx_slab_pool_t  *shpool;

    if (data) {
        zone->data = data;
        ngx_nango_shared = data;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    if (zone->shm.exists) {
        zone->data = shpool->data;
        ngx_nango_shared = shpool->data;
        return NGX_OK;
    }

    ngx_nango_shared = ngx_slab_calloc(shpool, sizeof(ngx_nango_shared_t));
    if (ngx_nango_shared == NULL) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "no room in the shared memory zone \"%V\"",
                      &zone->shm.name);
        return NGX_ERROR;
    }

    ngx_nango_shared->started_at = (ngx_atomic_uint_t) ngx_nango_now();

    shpool->data = ngx_nango_shared;
    zone->data = ngx_nango_shared;

    return NGX_OK;
}


void
ngx_nango_generation_begin(void)
{
    if (ngx_nango_shared) {
        ngx_nango_shared->loaded_at = (ngx_atomic_uint_t) ngx_nango_now();
        ngx_nango_shared->generation++;
    }
}


void
ngx_nango_generation(ngx_nango_generation_t *generation)
{
    ngx_memzero(generation, sizeof(ngx_nango_generation_t));

    if (ngx_nango_shared) {
        generation->number = ngx_nango_shared->generation;
        generation->started_at = ngx_nango_shared->started_at;
        generation->loaded_at = ngx_nango_shared->loaded_at;
    }
}


ngx_uint_t
ngx_nango_generation_first(void)
{
    ngx_atomic_uint_t  first;

    if (ngx_nango_shared == NULL) {
        return 0;
    }

    first = ngx_nango_shared->first;

    return first < ngx_nango_shared->generation
           && ngx_atomic_cmp_set(&ngx_nango_shared->first, first,
                                 ngx_nango_shared->generation);
}


void
ngx_nango_count(ngx_nango_counter_e counter)
{
    if (ngx_nango_shared) {
        (void) ngx_atomic_fetch_add(&ngx_nango_shared->counters[counter], 1);
    }
}


uint64_t
ngx_nango_counted(ngx_nango_counter_e counter)
{
    return ngx_nango_shared ? ngx_nango_shared->counters[counter] : 0;
}


static ngx_nango_account_slot_t *
ngx_nango_account(ngx_str_t *account)
{
    ngx_uint_t                 i, n;
    ngx_atomic_uint_t          name;
    ngx_nango_account_slot_t  *slot;

    if (ngx_nango_shared == NULL) {
        return NULL;
    }

    name = (ngx_atomic_uint_t) ngx_crc32_long(account->data, account->len) + 1;

    for (i = 0; i < NGX_NANGO_ACCOUNTS; i++) {
        n = (name + i) % NGX_NANGO_ACCOUNTS;
        slot = &ngx_nango_shared->accounts[n];

        if (slot->name == name
            || (slot->name == 0 && ngx_atomic_cmp_set(&slot->name, 0, name))
            || slot->name == name)
        {
            return slot;
        }
    }

    return NULL;
}


/* Whether that is yet to come: further ahead is what a wrong clock has said. */

static ngx_uint_t
ngx_nango_ahead(uint64_t time, uint64_t now, uint64_t longest)
{
    return time > now && time - now <= longest;
}


time_t
ngx_nango_account_blocked(ngx_str_t *account)
{
    time_t                     now, blocked;
    ngx_nango_account_slot_t  *slot;

    slot = ngx_nango_account(account);
    if (slot == NULL) {
        return 0;
    }

    now = ngx_time();
    blocked = (time_t) slot->blocked;

    return ngx_nango_ahead(blocked, now, NGX_NANGO_BLOCK_MAX) ? blocked - now
                                                              : 0;
}


void
ngx_nango_account_block(ngx_str_t *account, time_t seconds)
{
    time_t                     now;
    ngx_atomic_uint_t          old, until;
    ngx_nango_account_slot_t  *slot;

    slot = ngx_nango_account(account);
    if (slot == NULL) {
        return;
    }

    now = ngx_time();
    until = now + seconds;

    do {
        old = slot->blocked;

        if (old >= until && ngx_nango_ahead(old, now, NGX_NANGO_BLOCK_MAX)) {
            return;
        }

    } while (!ngx_atomic_cmp_set(&slot->blocked, old, until));
}


time_t
ngx_nango_account_limited(ngx_str_t *account, time_t retry_after,
    ngx_log_t *log)
{
    time_t  seconds;

    seconds = ngx_max(retry_after, 1);
    seconds = ngx_min(seconds, NGX_NANGO_BLOCK_MAX);

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "nango: account \"%V\" is over its rate limit; nothing is "
                  "sent to it for %T s", account, seconds);

    ngx_nango_account_block(account, seconds);

    return seconds;
}


void
ngx_nango_account_budget(ngx_str_t *account, ngx_uint_t limit,
    ngx_uint_t remaining, time_t reset)
{
    ngx_nango_account_slot_t  *slot;

    slot = ngx_nango_account(account);

    if (slot) {
        slot->low = (remaining < limit / 4)
                    ? (ngx_atomic_uint_t) (ngx_time()
                                           + ngx_min(reset,
                                                     NGX_NANGO_LOW_MAX))
                    : 0;
    }
}


ngx_uint_t
ngx_nango_account_low(ngx_str_t *account)
{
    ngx_nango_account_slot_t  *slot;

    slot = ngx_nango_account(account);

    return slot && ngx_nango_ahead(slot->low, ngx_time(), NGX_NANGO_LOW_MAX);
}


static ngx_nango_environment_slot_t *
ngx_nango_environment_slot(u_char *key)
{
    ngx_uint_t                     i, n;
    ngx_atomic_uint_t              name;
    ngx_nango_environment_slot_t  *slot;

    if (ngx_nango_shared == NULL) {
        return NULL;
    }

    ngx_memcpy(&name, key, sizeof(ngx_atomic_uint_t));
    name |= 1;

    for (i = 0; i < NGX_NANGO_ENVIRONMENTS; i++) {
        n = (name + i) % NGX_NANGO_ENVIRONMENTS;
        slot = &ngx_nango_shared->environments[n];

        if (slot->name == name
            || (slot->name == 0 && ngx_atomic_cmp_set(&slot->name, 0, name))
            || slot->name == name)
        {
            return slot;
        }
    }

    return NULL;
}


ngx_atomic_t *
ngx_nango_reconciled(u_char *key)
{
    ngx_nango_environment_slot_t  *slot;

    slot = ngx_nango_environment_slot(key);

    return slot ? &slot->reconciled : NULL;
}


void
ngx_nango_reconciled_never(void)
{
    ngx_uint_t  i;

    if (ngx_nango_shared == NULL) {
        return;
    }

    for (i = 0; i < NGX_NANGO_ENVIRONMENTS; i++) {
        ngx_nango_shared->environments[i].reconciled = 0;
    }
}


ngx_atomic_t *
ngx_nango_compared(u_char *key)
{
    ngx_nango_environment_slot_t  *slot;

    slot = ngx_nango_environment_slot(key);

    return slot ? &slot->compared : NULL;
}


ngx_int_t
ngx_nango_circuit_enter(u_char *key, ngx_msec_t timeout)
{
    uint64_t                       now;
    ngx_atomic_uint_t              until;
    ngx_nango_environment_slot_t  *slot;

    slot = ngx_nango_environment_slot(key);

    if (slot == NULL || slot->failures < NGX_NANGO_CIRCUIT) {
        return NGX_OK;
    }

    now = ngx_nango_now();
    until = slot->closed;

    /* A clock that was set back does not keep it open. */

    if (until > now && until <= now + NGX_NANGO_CIRCUIT_LONGEST) {
        return NGX_DECLINED;
    }

    timeout = ngx_min(timeout, NGX_NANGO_CIRCUIT_LONGEST);

    return ngx_atomic_cmp_set(&slot->closed, until,
                              (ngx_atomic_uint_t) (now + timeout))
           ? NGX_OK : NGX_DECLINED;
}


void
ngx_nango_circuit_leave(u_char *key, ngx_uint_t failed, ngx_str_t *name,
    ngx_log_t *log)
{
    ngx_uint_t                     shift;
    ngx_atomic_uint_t              failures;
    ngx_nango_environment_slot_t  *slot;

    slot = ngx_nango_environment_slot(key);

    if (slot == NULL) {
        return;
    }

    if (!failed) {
        failures = slot->failures;

        if (failures != 0 && ngx_atomic_cmp_set(&slot->failures, failures, 0)
            && failures >= NGX_NANGO_CIRCUIT)
        {
            ngx_log_error(NGX_LOG_NOTICE, log, 0,
                          "nango: environment \"%V\" answers again", name);
        }

        return;
    }

    failures = ngx_atomic_fetch_add(&slot->failures, 1) + 1;

    if (failures < NGX_NANGO_CIRCUIT) {
        return;
    }

    shift = ngx_min(failures - NGX_NANGO_CIRCUIT, 3);

    slot->closed = (ngx_atomic_uint_t) (ngx_nango_now()
                                        + (NGX_NANGO_CIRCUIT_OPEN << shift));

    if (failures == NGX_NANGO_CIRCUIT) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "nango: environment \"%V\" does not answer; from time "
                      "to time one request is sent to see whether it does",
                      name);
    }
}


void
ngx_nango_circuit_give_up(u_char *key)
{
    ngx_nango_environment_slot_t  *slot;

    slot = ngx_nango_environment_slot(key);

    if (slot && slot->failures >= NGX_NANGO_CIRCUIT) {
        slot->closed = 0;
    }
}


ngx_uint_t
ngx_nango_circuit_open(u_char *key)
{
    ngx_nango_environment_slot_t  *slot;

    slot = ngx_nango_environment_slot(key);

    return slot && slot->failures >= NGX_NANGO_CIRCUIT;
}


/* NULL without one; with take, one is taken, unless all are. */

static ngx_nango_subscriber_slot_t *
ngx_nango_subscriber_slot(u_char *key, ngx_uint_t take)
{
    ngx_uint_t                    i, n;
    ngx_atomic_uint_t             name;
    ngx_nango_subscriber_slot_t  *slot;

    if (ngx_nango_shared == NULL) {
        return NULL;
    }

    ngx_memcpy(&name, key, sizeof(ngx_atomic_uint_t));
    name |= 1;

    for (i = 0; i < NGX_NANGO_SUBSCRIBERS; i++) {
        n = (name + i) % NGX_NANGO_SUBSCRIBERS;
        slot = &ngx_nango_shared->subscribers[n];

        if (slot->name == name) {
            return slot;
        }

        if (slot->name != 0) {
            continue;
        }

        if (!take) {
            return NULL;
        }

        if (ngx_atomic_cmp_set(&slot->name, 0, name) || slot->name == name) {
            return slot;
        }
    }

    return NULL;
}


void
ngx_nango_delivery_started(u_char *key, ngx_uint_t in_flight)
{
    ngx_nango_subscriber_slot_t  *slot;

    ngx_nango_count(NGX_NANGO_DELIVERIES_ATTEMPTED);

    slot = ngx_nango_subscriber_slot(key, 1);

    if (slot) {
        (void) ngx_atomic_fetch_add(&slot->attempts, 1);
        slot->in_flight = in_flight;
    }
}


void
ngx_nango_delivery_ended(u_char *key, ngx_uint_t in_flight,
    ngx_nango_delivery_error_e error, ngx_uint_t status)
{
    ngx_nango_subscriber_slot_t  *slot;

    ngx_nango_count(error == NGX_NANGO_DELIVERY_NONE
                    ? NGX_NANGO_DELIVERIES_DELIVERED
                    : NGX_NANGO_DELIVERIES_FAILED);

    slot = ngx_nango_subscriber_slot(key, 1);

    if (slot == NULL) {
        return;
    }

    slot->in_flight = in_flight;

    if (error == NGX_NANGO_DELIVERY_NONE) {
        (void) ngx_atomic_fetch_add(&slot->delivered, 1);
        slot->success_at = (ngx_atomic_uint_t) ngx_nango_now();
        return;
    }

    (void) ngx_atomic_fetch_add(&slot->failed, 1);
    slot->failure_at = (ngx_atomic_uint_t) ngx_nango_now();
    slot->error = error | status << 8;
}


void
ngx_nango_delivery_in_flight(u_char *key, ngx_uint_t in_flight)
{
    ngx_nango_subscriber_slot_t  *slot;

    slot = ngx_nango_subscriber_slot(key, 1);

    if (slot) {
        slot->in_flight = in_flight;
    }
}


void
ngx_nango_delivery_down(u_char *key, uint64_t since)
{
    ngx_nango_subscriber_slot_t  *slot;

    slot = ngx_nango_subscriber_slot(key, 1);

    if (slot) {
        slot->down_since = (ngx_atomic_uint_t) since;
    }
}


void
ngx_nango_delivery_state(u_char *key, ngx_nango_delivery_state_t *state)
{
    ngx_atomic_uint_t             error;
    ngx_nango_subscriber_slot_t  *slot;

    ngx_memzero(state, sizeof(ngx_nango_delivery_state_t));

    slot = ngx_nango_subscriber_slot(key, 0);

    if (slot == NULL) {
        return;
    }

    error = slot->error;

    state->in_flight = slot->in_flight;
    state->attempts = slot->attempts;
    state->delivered = slot->delivered;
    state->failed = slot->failed;
    state->down_since = slot->down_since;
    state->success_at = slot->success_at;
    state->failure_at = slot->failure_at;
    state->status = error >> 8;

    if ((error & 0xff) < NGX_NANGO_DELIVERY_ERRORS) {
        state->error = error & 0xff;
    }
}


/*
 * The generic cell rate algorithm: the word is the time at which the bucket
 * will be empty.  ngx_current_msec is the machine's monotonic clock, the same
 * in all workers.
 */

ngx_msec_t
ngx_nango_limit(u_char *key, ngx_msec_t interval, ngx_uint_t burst)
{
    uint64_t            tag, now, empty, slot_empty;
    ngx_uint_t          i, n;
    ngx_atomic_t       *set, *slot;
    ngx_atomic_uint_t   old;

    if (ngx_nango_shared == NULL) {
        return 0;
    }

    n = (key[0] | (key[1] << 8)) % NGX_NANGO_LIMIT_SETS;
    set = &ngx_nango_shared->limits[n * NGX_NANGO_LIMIT_WAYS];

    tag = ((uint64_t) key[2] << 16 | (uint64_t) key[3] << 8 | key[4]) << 40;
    now = (uint64_t) ngx_current_msec & NGX_NANGO_LIMIT_TIME;

    /* Others may take the slot meanwhile; a bucket is worth a few tries. */

    for (n = 0; n < 16; n++) {

        slot = &set[0];

        for (i = 0; i < NGX_NANGO_LIMIT_WAYS; i++) {

            if ((set[i] & ~NGX_NANGO_LIMIT_TIME) == tag && set[i] != 0) {
                slot = &set[i];
                break;
            }

            if ((set[i] & NGX_NANGO_LIMIT_TIME)
                < (*slot & NGX_NANGO_LIMIT_TIME))
            {
                slot = &set[i];
            }
        }

        old = *slot;
        slot_empty = old & NGX_NANGO_LIMIT_TIME;
        empty = now;

        if ((old & ~NGX_NANGO_LIMIT_TIME) == tag && slot_empty > now) {
            empty = slot_empty;
        }

        if (empty - now > burst * interval) {
            return empty - now - burst * interval;
        }

        if (ngx_atomic_cmp_set(slot, old, tag | (empty + interval))) {
            return 0;
        }
    }

    return 0;
}


ngx_uint_t
ngx_nango_slot_take(ngx_atomic_t *slot)
{
    ngx_atomic_uint_t  holder;

    holder = *slot;

    if (holder != 0
        && (kill((pid_t) holder, 0) == 0 || ngx_errno != NGX_ESRCH))
    {
        return 0;
    }

    return ngx_atomic_cmp_set(slot, holder, ngx_pid);
}


void
ngx_nango_slot_leave(ngx_atomic_t *slot)
{
    ngx_memory_barrier();
    *slot = 0;
}


static uint32_t
ngx_nango_slot_crc(ngx_nango_session_slot_t *slot)
{
    uint32_t  crc;

    ngx_crc32_init(crc);
    ngx_crc32_update(&crc, (u_char *) &slot->expires, sizeof(slot->expires));
    ngx_crc32_update(&crc, slot->key, NGX_NANGO_SESSION_KEY_LEN);
    ngx_crc32_update(&crc, slot->answer, slot->len);
    ngx_crc32_final(crc);

    return crc;
}


static ngx_nango_session_slot_t *
ngx_nango_session_set(u_char *key)
{
    uint32_t  n;

    ngx_memcpy(&n, key, sizeof(n));

    n = (n % NGX_NANGO_SESSION_SETS) * NGX_NANGO_SESSION_WAYS;

    return &ngx_nango_shared->sessions[n];
}


ngx_int_t
ngx_nango_session_find(u_char *key, u_char *answer, size_t *len)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_nango_session_slot_t  *slot;

    if (ngx_nango_shared == NULL) {
        return NGX_DECLINED;
    }

    slot = ngx_nango_session_set(key);

    for (i = 0; i < NGX_NANGO_SESSION_WAYS; i++, slot++) {

        if (slot->len == 0
            || ngx_memcmp(slot->key, key, NGX_NANGO_SESSION_KEY_LEN) != 0
            || !ngx_nango_slot_take(&slot->holder))
        {
            continue;
        }

        rc = NGX_DECLINED;

        if (ngx_memcmp(slot->key, key, NGX_NANGO_SESSION_KEY_LEN) == 0
            && slot->len <= NGX_NANGO_SESSION_ANSWER_MAX
            && ngx_nango_ahead(slot->expires, ngx_nango_now(),
                               NGX_NANGO_SESSION_LONGEST * 1000)
            && slot->crc == ngx_nango_slot_crc(slot))
        {
            ngx_memcpy(answer, slot->answer, slot->len);
            *len = slot->len;
            rc = NGX_OK;
        }

        ngx_nango_slot_leave(&slot->holder);

        if (rc == NGX_OK) {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


void
ngx_nango_session_store(u_char *key, u_char *answer, size_t len,
    time_t lifetime)
{
    ngx_uint_t                 i;
    ngx_nango_session_slot_t  *slot, *best;

    if (ngx_nango_shared == NULL || len > NGX_NANGO_SESSION_ANSWER_MAX) {
        return;
    }

    slot = ngx_nango_session_set(key);
    best = slot;

    for (i = 0; i < NGX_NANGO_SESSION_WAYS; i++, slot++) {

        if (ngx_memcmp(slot->key, key, NGX_NANGO_SESSION_KEY_LEN) == 0) {
            best = slot;
            break;
        }

        if (slot->expires < best->expires) {
            best = slot;
        }
    }

    if (!ngx_nango_slot_take(&best->holder)) {
        return;
    }

    best->len = 0;
    ngx_memory_barrier();

    ngx_memcpy(best->key, key, NGX_NANGO_SESSION_KEY_LEN);
    ngx_memcpy(best->answer, answer, len);
    best->expires = ngx_nango_now() + (uint64_t) lifetime * 1000;
    best->len = len;
    best->crc = ngx_nango_slot_crc(best);

    ngx_nango_slot_leave(&best->holder);
}


uint64_t
ngx_nango_applied_hint(void)
{
    return ngx_nango_shared ? ngx_nango_shared_get(applied) : 0;
}


void
ngx_nango_set_applied_hint(uint64_t sequence)
{
    if (ngx_nango_shared) {
        ngx_nango_shared_set(applied, sequence);
    }
}


ngx_uint_t
ngx_nango_fold_wanted(void)
{
    return ngx_nango_shared
           && ngx_nango_ahead(ngx_nango_shared_get(wanted), ngx_nango_now(),
                              1000);
}


void
ngx_nango_want_fold(void)
{
    if (ngx_nango_shared) {
        ngx_nango_shared_set(wanted, ngx_nango_now() + 1000);
    }
}


ngx_uint_t
ngx_nango_fold_watched(void)
{
    return ngx_nango_shared
           && ngx_nango_ahead(ngx_nango_shared_get(watched), ngx_nango_now(),
                              1000);
}


void
ngx_nango_watch_fold(void)
{
    if (ngx_nango_shared) {
        ngx_nango_shared_set(watched, ngx_nango_now() + 1000);
    }
}
