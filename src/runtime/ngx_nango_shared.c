/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_shared.h.  The zone's memory is one structure, allocated once
 * from nginx's slab and kept over reloads by its name.
 */

#include "ngx_nango_shared.h"

#include <signal.h>


#define NGX_NANGO_ACCOUNTS       64
#define NGX_NANGO_SESSION_SETS   1024
#define NGX_NANGO_SESSION_WAYS   4

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
} ngx_nango_account_slot_t;


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
    ngx_atomic_t              applied;
    ngx_atomic_t              wanted;
    ngx_nango_account_slot_t  accounts[NGX_NANGO_ACCOUNTS];
    ngx_nango_session_slot_t  sessions[NGX_NANGO_SESSION_SETS
                                       * NGX_NANGO_SESSION_WAYS];
} ngx_nango_shared_t;


static ngx_int_t ngx_nango_shared_init(ngx_shm_zone_t *zone, void *data);
static ngx_atomic_t *ngx_nango_account(ngx_str_t *account);
static ngx_uint_t ngx_nango_slot_take(ngx_nango_session_slot_t *slot);
static void ngx_nango_slot_leave(ngx_nango_session_slot_t *slot);
static uint32_t ngx_nango_slot_crc(ngx_nango_session_slot_t *slot);


static ngx_nango_shared_t  *ngx_nango_shared;


ngx_int_t
ngx_nango_shared_add(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    static ngx_str_t  name = ngx_string("nango:1");

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

    shpool->data = ngx_nango_shared;
    zone->data = ngx_nango_shared;

    return NGX_OK;
}


void
ngx_nango_count(ngx_nango_counter_e counter)
{
    if (ngx_nango_shared) {
        (void) ngx_atomic_fetch_add(&ngx_nango_shared->counters[counter], 1);
    }
}


static ngx_atomic_t *
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
            return &slot->blocked;
        }
    }

    return NULL;
}


time_t
ngx_nango_account_blocked(ngx_str_t *account)
{
    time_t         now;
    ngx_atomic_t  *blocked;

    blocked = ngx_nango_account(account);
    if (blocked == NULL) {
        return 0;
    }

    now = ngx_time();

    return ((time_t) *blocked > now) ? (time_t) *blocked - now : 0;
}


void
ngx_nango_account_block(ngx_str_t *account, time_t seconds)
{
    ngx_atomic_t       *blocked;
    ngx_atomic_uint_t   old, until;

    blocked = ngx_nango_account(account);
    if (blocked == NULL) {
        return;
    }

    until = ngx_time() + seconds;

    do {
        old = *blocked;

        if (old >= until) {
            return;
        }

    } while (!ngx_atomic_cmp_set(blocked, old, until));
}


static ngx_uint_t
ngx_nango_slot_take(ngx_nango_session_slot_t *slot)
{
    ngx_atomic_uint_t  holder;

    holder = slot->holder;

    if (holder != 0
        && (kill((pid_t) holder, 0) == 0 || ngx_errno != NGX_ESRCH))
    {
        return 0;
    }

    return ngx_atomic_cmp_set(&slot->holder, holder, ngx_pid);
}


static void
ngx_nango_slot_leave(ngx_nango_session_slot_t *slot)
{
    ngx_memory_barrier();
    slot->holder = 0;
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
            || !ngx_nango_slot_take(slot))
        {
            continue;
        }

        rc = NGX_DECLINED;

        if (ngx_memcmp(slot->key, key, NGX_NANGO_SESSION_KEY_LEN) == 0
            && slot->len <= NGX_NANGO_SESSION_ANSWER_MAX
            && slot->expires > ngx_nango_now()
            && slot->crc == ngx_nango_slot_crc(slot))
        {
            ngx_memcpy(answer, slot->answer, slot->len);
            *len = slot->len;
            rc = NGX_OK;
        }

        ngx_nango_slot_leave(slot);

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

    if (!ngx_nango_slot_take(best)) {
        return;
    }

    best->len = 0;
    ngx_memory_barrier();

    ngx_memcpy(best->key, key, NGX_NANGO_SESSION_KEY_LEN);
    ngx_memcpy(best->answer, answer, len);
    best->expires = ngx_nango_now() + (uint64_t) lifetime * 1000;
    best->len = len;
    best->crc = ngx_nango_slot_crc(best);

    ngx_nango_slot_leave(best);
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
           && ngx_nango_shared_get(wanted) > ngx_nango_now();
}


void
ngx_nango_want_fold(void)
{
    if (ngx_nango_shared) {
        ngx_nango_shared_set(wanted, ngx_nango_now() + 1000);
    }
}
