/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_credential.h.
 *
 * A slot in shared memory is taken for the time of a copy, or of the beginning
 * of a fetch, and never waited for.  Who finds neither credentials nor somebody
 * who fetches them takes the lease to do so; the others, in whatever worker,
 * look every 10 ms.  A lease ends by itself, and with the process that holds
 * it.  A failure is kept for a second, so that those who waited do not ask one
 * after the other.
 *
 * The fetch belongs to nobody who waits: it goes on when all of them leave.
 * Its result is given to those who wait in its own worker, and then put into
 * the slot for the others, again and again while somebody is just at it.
 *
 * Versions of a connection only grow.  Who has looked at an older one than the
 * slot is of gets nothing from it: the connection may be somebody else's now.
 */

#include "ngx_nango_credential.h"
#include "ngx_nango_curl.h"
#include "ngx_nango_shared.h"

#include <signal.h>


#define NGX_NANGO_CREDENTIAL_SETS     512
#define NGX_NANGO_CREDENTIAL_WAYS     4
#define NGX_NANGO_CREDENTIAL_LOOK     10

/* ms */
#define NGX_NANGO_CREDENTIAL_FAILED   1000
#define NGX_NANGO_CREDENTIAL_MARGIN   (60 * 1000)
#define NGX_NANGO_CREDENTIAL_UNKNOWN  (5 * 60 * 1000)
#define NGX_NANGO_CREDENTIAL_LONGEST  (60 * 60 * 1000)

#define NGX_NANGO_CREDENTIAL_ZONE     (40 * 1024 * 1024)


typedef struct {
    ngx_atomic_t              holder;       /* pid */
    ngx_atomic_t              fetcher;      /* pid, 0: nobody */
    uint64_t                  lease;        /* until, ms since 1970 */
    uint64_t                  expires;      /* ms since 1970 */
    uint64_t                  version;
    uint32_t                  crc;
    uint32_t                  len;
    uint32_t                  failure;
    u_char                    key[NANGO_KEY_LEN];
    u_char                    data[NGX_NANGO_CREDENTIAL_MAX];
} ngx_nango_credential_slot_t;


/* Under way, or with a result that is still to be put into the slot. */
typedef struct {
    ngx_queue_t               queue;
    ngx_nango_transfer_t     *transfer;     /* NULL: it has ended */
    u_char                    key[NANGO_KEY_LEN];
    uint64_t                  version;
    nango_str_t               integration;
    nango_str_t               connection_id;
    uint64_t                  expires;
    size_t                    len;
    ngx_nango_credential_e    failure;
    u_char                    data[NGX_NANGO_CREDENTIAL_MAX];
    u_char                    strings[1];
} ngx_nango_fetch_t;


static ngx_int_t ngx_nango_credential_init(ngx_shm_zone_t *zone, void *data);
static ngx_int_t ngx_nango_credential_find(ngx_nango_credential_t *c,
    ngx_uint_t fetch);
static ngx_nango_credential_slot_t *ngx_nango_credential_slot(u_char *key,
    ngx_uint_t create);
static ngx_uint_t ngx_nango_credential_kept(
    ngx_nango_credential_slot_t *slot);
static ngx_uint_t ngx_nango_credential_leased(
    ngx_nango_credential_slot_t *slot);
static ngx_int_t ngx_nango_credential_store(u_char *key, uint64_t version,
    u_char *data, size_t len, uint64_t expires,
    ngx_nango_credential_e failure);
static ngx_nango_credential_e ngx_nango_credential_fetch(
    ngx_nango_credential_t *c);
static void ngx_nango_credential_done(ngx_nango_transfer_t *t);
static void ngx_nango_credential_free(ngx_nango_fetch_t *f);
static ngx_nango_credential_e ngx_nango_credential_reply(
    ngx_nango_transfer_t *t, ngx_nango_fetch_t *f, u_char *data, size_t *len,
    uint64_t *expires);
static void ngx_nango_credential_look(ngx_event_t *ev);
static void ngx_nango_credential_ended(ngx_queue_t *ready);


static ngx_nango_credential_slot_t  *ngx_nango_credential_slots;

static ngx_queue_t       ngx_nango_credential_waiting;
static ngx_queue_t       ngx_nango_credential_fetches;
static ngx_queue_t       ngx_nango_credential_results;
static ngx_event_t       ngx_nango_credential_timer;
static ngx_connection_t  ngx_nango_credential_dummy;


ngx_int_t
ngx_nango_credential_add(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t  *zone;

    static ngx_str_t  name = ngx_string("nango_credentials:1");

    zone = ngx_shared_memory_add(cf, &name, NGX_NANGO_CREDENTIAL_ZONE, tag);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_nango_credential_init;

    return NGX_OK;
}


static ngx_int_t
ngx_nango_credential_init(ngx_shm_zone_t *zone, void *data)
{
    ngx_slab_pool_t  *shpool;

    if (data) {
        zone->data = data;
        ngx_nango_credential_slots = data;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    /*
     * The pages are new and zero; clearing them would only make all of them
     * take memory.
     */

    ngx_nango_credential_slots = ngx_slab_alloc(shpool,
                                        NGX_NANGO_CREDENTIAL_SETS
                                        * NGX_NANGO_CREDENTIAL_WAYS
                                        * sizeof(ngx_nango_credential_slot_t));

    if (ngx_nango_credential_slots == NULL) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "no room in the shared memory zone \"%V\"",
                      &zone->shm.name);
        return NGX_ERROR;
    }

    zone->data = ngx_nango_credential_slots;

    return NGX_OK;
}


void
ngx_nango_credential_exit(void)
{
    ngx_queue_t        *q;
    ngx_nango_fetch_t  *f;

    if (ngx_nango_credential_timer.handler == NULL) {
        return;
    }

    while (!ngx_queue_empty(&ngx_nango_credential_fetches)) {
        q = ngx_queue_head(&ngx_nango_credential_fetches);
        f = ngx_queue_data(q, ngx_nango_fetch_t, queue);

        ngx_nango_transfer_abandon(f->transfer);
        ngx_nango_credential_free(f);
    }

    while (!ngx_queue_empty(&ngx_nango_credential_results)) {
        q = ngx_queue_head(&ngx_nango_credential_results);
        ngx_nango_credential_free(ngx_queue_data(q, ngx_nango_fetch_t, queue));
    }

    if (ngx_nango_credential_timer.timer_set) {
        ngx_del_timer(&ngx_nango_credential_timer);
    }
}


ngx_int_t
ngx_nango_credential_get(ngx_nango_credential_t *c)
{
    if (ngx_nango_credential_timer.handler == NULL) {

        ngx_queue_init(&ngx_nango_credential_waiting);
        ngx_queue_init(&ngx_nango_credential_fetches);
        ngx_queue_init(&ngx_nango_credential_results);

        ngx_nango_credential_dummy.fd = (ngx_socket_t) -1;

        ngx_nango_credential_timer.handler = ngx_nango_credential_look;
        ngx_nango_credential_timer.log = ngx_cycle->log;
        ngx_nango_credential_timer.data = &ngx_nango_credential_dummy;
    }

    if (ngx_nango_credential_find(c, 1) == NGX_OK) {
        return NGX_OK;
    }

    /* The one who fetches is given its time, and then a little. */

    c->deadline = ngx_current_msec + c->environment->api_timeout + 1000;
    c->waiting = 1;

    ngx_queue_insert_tail(&ngx_nango_credential_waiting, &c->queue);

    if (!ngx_nango_credential_timer.timer_set) {
        ngx_add_timer(&ngx_nango_credential_timer, NGX_NANGO_CREDENTIAL_LOOK);
    }

    return NGX_AGAIN;
}


void
ngx_nango_credential_cancel(ngx_nango_credential_t *c)
{
    if (c->waiting) {
        ngx_queue_remove(&c->queue);
        c->waiting = 0;
    }
}


/* NGX_OK: there is a result; NGX_AGAIN: somebody fetches. */

static ngx_int_t
ngx_nango_credential_find(ngx_nango_credential_t *c, ngx_uint_t fetch)
{
    ngx_int_t                     rc;
    ngx_nango_credential_slot_t  *slot;

    slot = ngx_nango_credential_slot(c->key, 1);

    if (slot == NULL) {
        /* Somebody is just at it. */
        return NGX_AGAIN;
    }

    rc = NGX_AGAIN;

    /* Of one that is newer nothing, unless that is what the store says now. */

    if (slot->version > c->version && !c->insist
        && (ngx_nango_credential_kept(slot)
            || ngx_nango_credential_leased(slot)))
    {
        ngx_nango_slot_leave(&slot->holder);

        c->failure = NGX_NANGO_CREDENTIAL_CHANGED;
        c->len = 0;

        return NGX_OK;
    }

    if (slot->version == c->version
        && ngx_nango_credential_kept(slot)
        && (slot->failure
            || (slot->len <= NGX_NANGO_CREDENTIAL_MAX
                && slot->crc == ngx_crc32_long(slot->data, slot->len))))
    {
        c->failure = slot->failure;
        c->len = 0;

        if (c->failure == NGX_NANGO_CREDENTIAL_OK) {
            ngx_memcpy(c->data, slot->data, slot->len);
            c->len = slot->len;
        }

        ngx_nango_slot_leave(&slot->holder);

        return NGX_OK;
    }

    if (slot->version != c->version || !ngx_nango_credential_leased(slot)) {
        slot->version = c->version;
        slot->expires = 0;
        slot->len = 0;
        slot->fetcher = ngx_pid;
        slot->lease = ngx_nango_now()
                      + ngx_min(c->environment->api_timeout + 1000,
                                (ngx_msec_t) NGX_NANGO_CREDENTIAL_LONGEST);

        /*
         * That it cannot begin has to be said while nobody else is at it: a
         * lease without a fetch would keep all of them waiting.
         */

        c->failure = ngx_nango_credential_fetch(c);

        if (c->failure) {
            slot->failure = c->failure;
            slot->expires = ngx_nango_now() + NGX_NANGO_CREDENTIAL_FAILED;
            slot->fetcher = 0;

            rc = NGX_OK;
        }
    }

    ngx_nango_slot_leave(&slot->holder);

    return rc;
}


/* Taken; NULL: it cannot be now.  Without create it may be that of another. */

static ngx_nango_credential_slot_t *
ngx_nango_credential_slot(u_char *key, ngx_uint_t create)
{
    ngx_uint_t                    i, n;
    ngx_nango_credential_slot_t  *slot, *best;

    n = (key[0] | key[1] << 8) % NGX_NANGO_CREDENTIAL_SETS;

    slot = &ngx_nango_credential_slots[n * NGX_NANGO_CREDENTIAL_WAYS];
    best = NULL;

    for (i = 0; i < NGX_NANGO_CREDENTIAL_WAYS; i++, slot++) {

        if (ngx_memcmp(slot->key, key, NANGO_KEY_LEN) == 0) {
            best = slot;
            break;
        }

        if (!ngx_nango_credential_leased(slot)
            && (best == NULL || slot->expires < best->expires))
        {
            best = slot;
        }
    }

    if (best == NULL || !ngx_nango_slot_take(&best->holder)) {
        return NULL;
    }

    if (ngx_memcmp(best->key, key, NANGO_KEY_LEN) != 0) {

        if (!create) {
            return best;
        }

        /* Another may have been quicker and has begun to use it. */

        if (ngx_nango_credential_leased(best)) {
            ngx_nango_slot_leave(&best->holder);
            return NULL;
        }

        ngx_memcpy(best->key, key, NANGO_KEY_LEN);

        best->version = 0;
        best->expires = 0;
        best->lease = 0;
        best->len = 0;
    }

    return best;
}


/* A clock that was set back does not keep it for longer. */

static ngx_uint_t
ngx_nango_credential_kept(ngx_nango_credential_slot_t *slot)
{
    uint64_t  now;

    now = ngx_nango_now();

    return slot->expires > now
           && slot->expires <= now + NGX_NANGO_CREDENTIAL_LONGEST;
}


static ngx_uint_t
ngx_nango_credential_leased(ngx_nango_credential_slot_t *slot)
{
    pid_t     pid;
    uint64_t  now;

    pid = (pid_t) slot->fetcher;
    now = ngx_nango_now();

    return pid != 0
           && slot->lease > now
           && slot->lease <= now + NGX_NANGO_CREDENTIAL_LONGEST
           && (pid == ngx_pid
               || kill(pid, 0) == 0 || ngx_errno != NGX_ESRCH);
}


/*
 * NGX_AGAIN: somebody is just at it.  Nothing is kept of who was so slow that
 * another has taken over his lease: what that one gets is newer.
 */

static ngx_int_t
ngx_nango_credential_store(u_char *key, uint64_t version, u_char *data,
    size_t len, uint64_t expires, ngx_nango_credential_e failure)
{
    ngx_nango_credential_slot_t  *slot;

    slot = ngx_nango_credential_slot(key, 0);

    if (slot == NULL) {
        return NGX_AGAIN;
    }

    if (ngx_memcmp(slot->key, key, NANGO_KEY_LEN) == 0
        && slot->version == version
        && slot->fetcher == (ngx_atomic_uint_t) ngx_pid)
    {
        if (failure) {
            expires = ngx_nango_now() + NGX_NANGO_CREDENTIAL_FAILED;

        } else {
            ngx_memcpy(slot->data, data, len);
        }

        slot->len = len;
        slot->crc = ngx_crc32_long(slot->data, len);
        slot->failure = failure;
        slot->expires = expires;
        slot->fetcher = 0;
    }

    ngx_nango_slot_leave(&slot->holder);

    return NGX_OK;
}


/* NGX_NANGO_CREDENTIAL_OK: it is on its way. */

static ngx_nango_credential_e
ngx_nango_credential_fetch(ngx_nango_credential_t *c)
{
    ngx_int_t              rc;
    ngx_nango_fetch_t     *f;
    ngx_nango_transfer_t  *t;

    if (ngx_nango_account_blocked(&c->environment->account)) {
        return NGX_NANGO_CREDENTIAL_LIMITED;
    }

    if (!nango_connection_id_usable(c->connection_id)) {
        return NGX_NANGO_CREDENTIAL_MISSING;
    }

    f = malloc(offsetof(ngx_nango_fetch_t, strings) + c->integration.len
               + c->connection_id.len);
    t = ngx_nango_transfer_create();

    if (f == NULL || t == NULL) {
        goto failed;
    }

    t->path_memory = nango_connection_path(c->connection_id, c->integration);

    if (t->path_memory == NULL) {
        goto failed;
    }

    ngx_memcpy(f->key, c->key, NANGO_KEY_LEN);
    f->version = c->version;

    f->integration = nango_str(f->strings, c->integration.len);
    f->connection_id = nango_str(f->strings + c->integration.len,
                                 c->connection_id.len);

    ngx_memcpy(f->strings, c->integration.data, c->integration.len);
    ngx_memcpy(f->strings + c->integration.len, c->connection_id.data,
               c->connection_id.len);

    t->environment = c->environment;
    t->method = "GET";
    t->path = t->path_memory;
    t->handler = ngx_nango_credential_done;
    t->data = f;

    f->transfer = t;

    rc = ngx_nango_transfer_start(t);

    if (rc == NGX_OK) {
        ngx_queue_insert_tail(&ngx_nango_credential_fetches, &f->queue);
        return NGX_NANGO_CREDENTIAL_OK;
    }

failed:

    if (t) {
        ngx_nango_transfer_free(t);
    }

    free(f);

    return NGX_NANGO_CREDENTIAL_UNAVAILABLE;
}


static void
ngx_nango_credential_done(ngx_nango_transfer_t *t)
{
    ngx_nango_fetch_t  *f;

    f = t->data;

    f->failure = ngx_nango_credential_reply(t, f, f->data, &f->len,
                                            &f->expires);
    f->transfer = NULL;

    ngx_queue_remove(&f->queue);
    ngx_queue_insert_tail(&ngx_nango_credential_results, &f->queue);

    /* Whom it concerns is told at once, and not from inside of libcurl. */

    if (ngx_nango_credential_timer.timer_set) {
        ngx_del_timer(&ngx_nango_credential_timer);
    }

    ngx_add_timer(&ngx_nango_credential_timer, 0);
}


static void
ngx_nango_credential_free(ngx_nango_fetch_t *f)
{
    ngx_queue_remove(&f->queue);
    ngx_explicit_memzero(f->data, NGX_NANGO_CREDENTIAL_MAX);
    free(f);
}


static ngx_nango_credential_e
ngx_nango_credential_reply(ngx_nango_transfer_t *t, ngx_nango_fetch_t *f,
    u_char *data, size_t *len, uint64_t *expires)
{
    int                       rc;
    uint64_t                  now, until;
    nango_api_error_t         error;
    ngx_nango_environment_t  *env;

    env = t->environment;
    *len = 0;
    *expires = 0;

    if (t->outcome != NGX_NANGO_TRANSFER_DONE) {

        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: GET %V/connections/{connectionId} for "
                      "credentials failed: %s", &env->api,
                      t->error ? t->error : "no answer in time");

        return (t->outcome == NGX_NANGO_TRANSFER_TIMEOUT)
               ? NGX_NANGO_CREDENTIAL_TIMEOUT
               : (t->outcome == NGX_NANGO_TRANSFER_UNAVAILABLE)
                 ? NGX_NANGO_CREDENTIAL_UNAVAILABLE
                 : NGX_NANGO_CREDENTIAL_ERROR;
    }

    if (t->status == 429) {
        ngx_nango_account_limited(&env->account, t->retry_after,
                                  ngx_cycle->log);
        return NGX_NANGO_CREDENTIAL_LIMITED;
    }

    if (t->status == 200 && t->json) {

        rc = nango_credential_pack(ngx_nango_str(&t->reply), f->integration,
                                   f->connection_id, data,
                                   NGX_NANGO_CREDENTIAL_MAX, len, &until);

        if (rc == -2) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                          "nango: the credentials of a connection in "
                          "environment \"%V\" are longer than %d bytes",
                          &env->name, NGX_NANGO_CREDENTIAL_MAX);
            return NGX_NANGO_CREDENTIAL_ERROR;
        }

        if (rc == 0) {
            now = ngx_nango_now();

            *expires = now + NGX_NANGO_CREDENTIAL_UNKNOWN;

            if (until) {
                until -= ngx_min(until, NGX_NANGO_CREDENTIAL_MARGIN);
                *expires = ngx_min(until, now + NGX_NANGO_CREDENTIAL_LONGEST);

                /* Those who wait get also what is about to expire. */

                *expires = ngx_max(*expires, now + 1000);
            }

            return NGX_NANGO_CREDENTIAL_OK;
        }
    }

    nango_api_error_parse(&error, ngx_nango_str(&t->reply));

    if (ngx_strcmp(error.code, "invalid_credentials") == 0) {
        return NGX_NANGO_CREDENTIAL_INVALID;
    }

    if (t->status == 404
        && ngx_strcmp(error.code, "not_found") == 0)
    {
        return NGX_NANGO_CREDENTIAL_MISSING;
    }

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "nango: GET %V/connections/{connectionId} answered %ui, not "
                  "credentials: \"%s\", \"%s\"", &env->api, t->status,
                  error.code, error.message);

    return NGX_NANGO_CREDENTIAL_ERROR;
}


static void
ngx_nango_credential_look(ngx_event_t *ev)
{
    ngx_queue_t             *q, ready;
    ngx_nango_credential_t  *c;

    ngx_queue_init(&ready);

    ngx_nango_credential_ended(&ready);

    q = ngx_queue_head(&ngx_nango_credential_waiting);

    while (q != ngx_queue_sentinel(&ngx_nango_credential_waiting)) {
        c = ngx_queue_data(q, ngx_nango_credential_t, queue);
        q = ngx_queue_next(q);

        if ((ngx_msec_int_t) (c->deadline - ngx_current_msec) <= 0) {
            c->failure = NGX_NANGO_CREDENTIAL_TIMEOUT;

        } else if (ngx_nango_credential_find(c, 1) != NGX_OK) {
            continue;
        }

        ngx_queue_remove(&c->queue);
        ngx_queue_insert_tail(&ready, &c->queue);
    }

    /* A handler may end others that are ready. */

    while (!ngx_queue_empty(&ready)) {
        q = ngx_queue_head(&ready);
        c = ngx_queue_data(q, ngx_nango_credential_t, queue);

        ngx_queue_remove(q);
        c->waiting = 0;

        c->handler(c);
    }

    if (!(ngx_queue_empty(&ngx_nango_credential_waiting)
          && ngx_queue_empty(&ngx_nango_credential_results))
        && !ev->timer_set)
    {
        ngx_add_timer(ev, NGX_NANGO_CREDENTIAL_LOOK);
    }
}


/* What has ended: to those who wait here, and into the slot. */

static void
ngx_nango_credential_ended(ngx_queue_t *ready)
{
    ngx_queue_t             *q, *next, *fq;
    ngx_nango_fetch_t       *f;
    ngx_nango_credential_t  *c;

    fq = ngx_queue_head(&ngx_nango_credential_results);

    while (fq != ngx_queue_sentinel(&ngx_nango_credential_results)) {
        f = ngx_queue_data(fq, ngx_nango_fetch_t, queue);
        fq = ngx_queue_next(fq);

        for (q = ngx_queue_head(&ngx_nango_credential_waiting);
             q != ngx_queue_sentinel(&ngx_nango_credential_waiting);
             q = next)
        {
            next = ngx_queue_next(q);
            c = ngx_queue_data(q, ngx_nango_credential_t, queue);

            if (c->version != f->version
                || ngx_memcmp(c->key, f->key, NANGO_KEY_LEN) != 0)
            {
                continue;
            }

            c->failure = f->failure;
            c->len = f->len;

            ngx_memcpy(c->data, f->data, f->len);

            ngx_queue_remove(&c->queue);
            ngx_queue_insert_tail(ready, &c->queue);
        }

        if (ngx_nango_credential_store(f->key, f->version, f->data, f->len,
                                       f->expires, f->failure)
            == NGX_OK)
        {
            ngx_nango_credential_free(f);
        }
    }
}
