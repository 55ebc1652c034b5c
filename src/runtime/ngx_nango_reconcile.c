/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_reconcile.h.  Each environment has runs of its own, beside
 * those of the others, which a Nango that is slow or silent would hold up:
 *
 *   list    Nango's connections, page by page.  Each is compared with the
 *           state, and the pages on which something is missing here, or has
 *           another status or other tags, are noted.  Its key goes into a
 *           Bloom filter.
 *   count   The state's connections, a portion at a time.  Those that were not
 *           listed may have vanished.  If these are more than a fifth, and
 *           more than ten, the key probably belongs to another environment:
 *           stop, and say so.  Nothing was changed until then.
 *   repair  The pages that were noted, again; all of them if these are many.
 *           What differs on them now is repaired.
 *   check   The state's connections again.  Nango is asked for each that was
 *           not listed (paging skips rows when others are deleted), and for
 *           each that was, though it was deleted here.
 *
 * A state of so few connections that they cannot be too many is repaired while
 * it is listed, such as one that is empty.
 *
 * Neither a list of the connections is kept in memory nor a snapshot of the
 * state over a wait.  A false positive of the filter leaves a connection that
 * has vanished for the next run, whose filter has other positions.
 *
 * Each repair is an event, signed like Nango's, so that the state has no other
 * way to change.  What was heard of a connection since the run began is newer
 * than what a page says, and is left alone.
 */

#include "ngx_nango_reconcile.h"
#include "ngx_nango_curl.h"
#include "ngx_nango_event.h"
#include "ngx_nango_leader.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_store.h"

#include "nango_json.h"


/* ms */
#define NGX_NANGO_RECONCILE_IDLE     250
#define NGX_NANGO_RECONCILE_NEXT     1
#define NGX_NANGO_RECONCILE_LOW      1000
#define NGX_NANGO_RECONCILE_WAIT     10
#define NGX_NANGO_RECONCILE_RETRY    (30 * 1000)

/* Of the last run, and not because a clock was set back. */
#define NGX_NANGO_RECONCILE_AHEAD    1000

/* A worker that has just started has more urgent things to ask Nango. */
#define NGX_NANGO_RECONCILE_START    3000

/* Clocks and pages: what was heard so shortly before is newer too. */
#define NGX_NANGO_RECONCILE_MARGIN   2000

/* Waits for the state before it is asked all the same. */
#define NGX_NANGO_RECONCILE_WAITS    100

#define NGX_NANGO_RECONCILE_PAGE     200
#define NGX_NANGO_RECONCILE_PORTION  500

/* Pages that are asked for again by themselves. */
#define NGX_NANGO_RECONCILE_PAGES    64

/* So many may vanish, whatever their share. */
#define NGX_NANGO_RECONCILE_FEW      10

/* Bits of the filter for a connection, and at least. */
#define NGX_NANGO_RECONCILE_BITS     16
#define NGX_NANGO_RECONCILE_MIN      (1024 * 1024)
#define NGX_NANGO_RECONCILE_MAX      ((uint64_t) 1 << 32)


typedef enum {
    NGX_NANGO_RECONCILE_NONE = 0,
    NGX_NANGO_RECONCILE_LIST,
    NGX_NANGO_RECONCILE_COUNT,
    NGX_NANGO_RECONCILE_REPAIR,
    NGX_NANGO_RECONCILE_CHECK
} ngx_nango_reconcile_e;


typedef struct {
    ngx_uint_t                 page;
    ngx_uint_t                 limit;
} ngx_nango_page_t;


typedef struct {
    ngx_nango_environment_t   *environment;
    ngx_event_t                event;
    ngx_msec_t                 start;

    /* Of the run. */
    ngx_nango_reconcile_e      phase;
    ngx_nango_transfer_t      *transfer;
    uint64_t                   started;     /* ms since 1970 */
    uint64_t                   seed;
    uint64_t                   bits;
    u_char                    *filter;
    ngx_uint_t                 page;
    ngx_uint_t                 limit;
    ngx_uint_t                 waited;

    /* Those that differ; more than there is room for: any may. */
    ngx_nango_page_t           pages[NGX_NANGO_RECONCILE_PAGES];
    ngx_uint_t                 npages;
    ngx_uint_t                 next;

    u_char                     key[NANGO_KEY_LEN];      /* in the walk */

    /* The one that Nango is asked for; malloc()ed. */
    u_char                    *asked;
    nango_str_t                integration;
    nango_str_t                connection_id;
    u_char                     asked_key[NANGO_KEY_LEN];

    uint64_t                   listed;
    uint64_t                   live;
    uint64_t                   gone;
    ngx_uint_t                 missing;
    ngx_uint_t                 vanished;
    ngx_uint_t                 status;
    ngx_uint_t                 tags;

    unsigned                   few:1;       /* repaired as it is listed */
    unsigned                   differs:1;   /* this page */
    unsigned                   gap:1;       /* events are missing since */
    unsigned                   failed:1;    /* as last logged */
} ngx_nango_reconcile_t;


static void ngx_nango_reconcile_handler(ngx_event_t *ev);
static ngx_uint_t ngx_nango_reconcile_behind(void);
static void ngx_nango_reconcile_begin(ngx_nango_reconcile_t *rec);
static ngx_uint_t ngx_nango_reconcile_due(ngx_nango_reconcile_t *rec);
static ngx_uint_t ngx_nango_reconcile_spent(ngx_nango_environment_t *env);
static ngx_int_t ngx_nango_reconcile_filter(ngx_nango_reconcile_t *rec);
static void ngx_nango_reconcile_end(ngx_nango_reconcile_t *rec,
    ngx_msec_t retry);
static void ngx_nango_reconcile_abandon(ngx_nango_reconcile_t *rec);
static void ngx_nango_reconcile_again(ngx_nango_reconcile_t *rec,
    ngx_msec_t ms);
static ngx_int_t ngx_nango_reconcile_ask(ngx_nango_reconcile_t *rec,
    char *path, ngx_nango_transfer_pt handler);
static ngx_int_t ngx_nango_reconcile_answered(ngx_nango_reconcile_t *rec,
    ngx_nango_transfer_t *t);

static void ngx_nango_reconcile_list(ngx_nango_reconcile_t *rec);
static void ngx_nango_reconcile_listed(ngx_nango_transfer_t *t);
static void ngx_nango_reconcile_turn(ngx_nango_reconcile_t *rec,
    ngx_uint_t n);
static void ngx_nango_reconcile_note(ngx_nango_reconcile_t *rec);
static void ngx_nango_reconcile_repairs(ngx_nango_reconcile_t *rec);
static ngx_int_t ngx_nango_reconcile_page(ngx_nango_reconcile_t *rec,
    nango_str_t reply, ngx_uint_t *n);
static ngx_int_t ngx_nango_reconcile_compare(ngx_nango_reconcile_t *rec,
    nango_reader_t *reader, nango_event_t *event, ngx_uint_t asked);
static ngx_uint_t ngx_nango_reconcile_same_tags(const nango_connection_t *c,
    const nango_event_t *event);
static ngx_int_t ngx_nango_reconcile_repair(ngx_nango_reconcile_t *rec,
    nango_reader_t *reader, nango_event_t *event, ngx_uint_t *count,
    ngx_nango_counter_e counter);

static ngx_nango_job_t *ngx_nango_reconcile_job(ngx_nango_reconcile_t *rec,
    nango_event_t *event);
static void ngx_nango_reconcile_count(ngx_nango_reconcile_t *rec);
static int ngx_nango_reconcile_counted(void *data,
    const nango_connection_t *c);
static void ngx_nango_reconcile_check(ngx_nango_reconcile_t *rec);
static int ngx_nango_reconcile_checked(void *data,
    const nango_connection_t *c);
static ngx_int_t ngx_nango_reconcile_want(ngx_nango_reconcile_t *rec,
    const nango_connection_t *c);
static void ngx_nango_reconcile_confirmed(ngx_nango_transfer_t *t);
static ngx_int_t ngx_nango_reconcile_confirm(ngx_nango_reconcile_t *rec,
    ngx_nango_transfer_t *t);

static void ngx_nango_filter_add(ngx_nango_reconcile_t *rec,
    const u_char *key);
static ngx_uint_t ngx_nango_filter_has(ngx_nango_reconcile_t *rec,
    const u_char *key);
static uint64_t ngx_nango_filter_bit(ngx_nango_reconcile_t *rec,
    const u_char *key, ngx_uint_t i);


/* One for each environment that is compared. */
static ngx_nango_reconcile_t  *ngx_nango_reconciles;
static ngx_uint_t              ngx_nango_nreconciles;
static ngx_connection_t        ngx_nango_reconcile_dummy;


ngx_int_t
ngx_nango_reconcile_init(ngx_cycle_t *cycle,
    ngx_nango_environment_t **environments, ngx_uint_t n)
{
    ngx_uint_t              i;
    ngx_nango_reconcile_t  *rec;

    if (n == 0) {
        return NGX_OK;
    }

    ngx_nango_reconciles = ngx_calloc(n * sizeof(ngx_nango_reconcile_t),
                                      cycle->log);
    if (ngx_nango_reconciles == NULL) {
        return NGX_ERROR;
    }

    ngx_nango_nreconciles = 0;
    ngx_nango_reconcile_dummy.fd = (ngx_socket_t) -1;

    for (i = 0; i < n; i++) {

        if (environments[i]->reconcile == 0
            || environments[i]->authorization.len == 0)
        {
            continue;
        }

        rec = &ngx_nango_reconciles[ngx_nango_nreconciles++];

        rec->environment = environments[i];
        rec->start = ngx_current_msec + NGX_NANGO_RECONCILE_START;

        rec->event.handler = ngx_nango_reconcile_handler;
        rec->event.log = cycle->log;
        rec->event.data = &ngx_nango_reconcile_dummy;

        /* It does not keep a worker from exiting. */
        rec->event.cancelable = 1;

        ngx_add_timer(&rec->event, NGX_NANGO_RECONCILE_IDLE);
    }

    return NGX_OK;
}


void
ngx_nango_reconcile_exit(void)
{
    ngx_uint_t              i;
    ngx_nango_reconcile_t  *rec;

    for (i = 0; i < ngx_nango_nreconciles; i++) {
        rec = &ngx_nango_reconciles[i];

        ngx_nango_reconcile_abandon(rec);

        if (rec->event.timer_set) {
            ngx_del_timer(&rec->event);
        }
    }

    if (ngx_nango_reconciles) {
        ngx_free(ngx_nango_reconciles);
    }

    ngx_nango_reconciles = NULL;
    ngx_nango_nreconciles = 0;
}


static void
ngx_nango_reconcile_handler(ngx_event_t *ev)
{
    ngx_nango_reconcile_t  *rec;

    rec = (ngx_nango_reconcile_t *)
              ((u_char *) ev - offsetof(ngx_nango_reconcile_t, event));

    if (ngx_exiting || !ngx_nango_leading()) {
        ngx_nango_reconcile_abandon(rec);
        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_IDLE);
        return;
    }

    if (rec->transfer) {
        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_IDLE);
        return;
    }

    if (rec->phase != NGX_NANGO_RECONCILE_NONE
        && ngx_nango_reconcile_spent(rec->environment))
    {
        /* What is left of the budget is for people who wait. */

        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_LOW);
        return;
    }

    if (rec->phase != NGX_NANGO_RECONCILE_NONE
        && rec->waited < NGX_NANGO_RECONCILE_WAITS
        && ngx_nango_reconcile_behind())
    {
        rec->waited++;
        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_WAIT);
        return;
    }

    rec->waited = 0;

    switch (rec->phase) {

    case NGX_NANGO_RECONCILE_NONE:
        ngx_nango_reconcile_begin(rec);
        break;

    case NGX_NANGO_RECONCILE_LIST:
    case NGX_NANGO_RECONCILE_REPAIR:
        ngx_nango_reconcile_list(rec);
        break;

    case NGX_NANGO_RECONCILE_COUNT:
        ngx_nango_reconcile_count(rec);
        break;

    default: /* NGX_NANGO_RECONCILE_CHECK */
        ngx_nango_reconcile_check(rec);
        break;
    }
}


/* Its own repairs too are waited for before anything more is compared. */

static ngx_uint_t
ngx_nango_reconcile_behind(void)
{
    ngx_uint_t       behind;
    nango_reader_t  *reader;

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {
        return 0;
    }

    behind = (nango_reader_last(reader) > nango_reader_applied(reader));

    nango_reader_end(reader);

    if (behind) {
        ngx_nango_want_fold();
    }

    return behind;
}


static void
ngx_nango_reconcile_begin(ngx_nango_reconcile_t *rec)
{
    if (!ngx_nango_reconcile_due(rec)
        || ngx_nango_reconcile_filter(rec) != NGX_OK)
    {
        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_IDLE);
        return;
    }

    rec->phase = NGX_NANGO_RECONCILE_LIST;
    rec->started = ngx_nango_now();
    rec->seed = ngx_nango_ticks() * 0x9e3779b97f4a7c15;
    rec->page = 0;
    rec->limit = NGX_NANGO_RECONCILE_PAGE;
    rec->npages = 0;
    rec->listed = 0;
    rec->live = 0;
    rec->gone = 0;
    rec->missing = 0;
    rec->vanished = 0;
    rec->status = 0;
    rec->tags = 0;
    rec->gap = 0;

    ngx_nango_reconcile_list(rec);
}


static ngx_uint_t
ngx_nango_reconcile_due(ngx_nango_reconcile_t *rec)
{
    uint64_t                  now;
    ngx_uint_t                i;
    ngx_atomic_t             *last;
    ngx_nango_environment_t  *env;

    if ((ngx_msec_int_t) (ngx_current_msec - rec->start) < 0) {
        return 0;
    }

    if (ngx_nango_leader_gap()) {

        /* Events are missing: all of them, now. */

        for (i = 0; i < ngx_nango_nreconciles; i++) {
            ngx_nango_reconciles[i].gap = 1;
        }

        ngx_nango_reconciled_never();
    }

    env = rec->environment;

    if (ngx_nango_reconcile_spent(env)) {
        return 0;
    }

    now = ngx_nango_now();
    last = ngx_nango_reconciled(env->key);

    /* A clock that was set back does not stop it. */

    return last && (*last + env->reconcile <= now
                    || *last > now + NGX_NANGO_RECONCILE_AHEAD);
}


/* Whether nothing of its account's budget is left for comparisons. */

static ngx_uint_t
ngx_nango_reconcile_spent(ngx_nango_environment_t *env)
{
    return ngx_nango_account_blocked(&env->account)
           || ngx_nango_account_low(&env->account);
}


static ngx_int_t
ngx_nango_reconcile_filter(ngx_nango_reconcile_t *rec)
{
    uint64_t         want, last, behind;
    nango_rc_e       rc;
    nango_error_t    err;
    nango_counts_t   counts;
    nango_reader_t  *reader;

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {
        return NGX_ERROR;
    }

    last = nango_reader_last(reader);
    behind = last - ngx_min(last, nango_reader_applied(reader));

    rc = nango_reader_counts(reader, &counts, &err);

    nango_reader_end(reader);

    if (rc != NANGO_OK) {
        return NGX_ERROR;
    }

    /* What is on its way there may be one more each. */

    rec->few = (counts.valid + counts.invalid + behind
                <= NGX_NANGO_RECONCILE_FEW);

    want = (counts.valid + counts.invalid + counts.tombstones)
           * NGX_NANGO_RECONCILE_BITS;

    rec->bits = NGX_NANGO_RECONCILE_MIN;

    while (rec->bits < want && rec->bits < NGX_NANGO_RECONCILE_MAX) {
        rec->bits *= 2;
    }

    rec->filter = calloc(1, rec->bits / 8);

    return rec->filter ? NGX_OK : NGX_ERROR;
}


/* retry: it has failed, and is begun again after so many ms at the latest. */

static void
ngx_nango_reconcile_end(ngx_nango_reconcile_t *rec, ngx_msec_t retry)
{
    uint64_t       now;
    ngx_atomic_t  *last;

    now = ngx_nango_now();

    last = ngx_nango_reconciled(rec->environment->key);

    if (last) {
        *last = (ngx_atomic_uint_t) now;

        if (retry && retry < rec->environment->reconcile) {
            *last -= rec->environment->reconcile - retry;

        } else if (!retry && rec->gap) {

            /* It has begun before that. */
            *last = 0;
        }
    }

    if (!retry) {

        if (rec->failed) {
            rec->failed = 0;
            ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                          "nango: environment \"%V\" can be compared with "
                          "Nango again", &rec->environment->name);
        }

        if (rec->missing || rec->vanished || rec->status || rec->tags) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                          "nango: environment \"%V\" differed from Nango: of "
                          "%uL connections %ui were missing, %ui had "
                          "vanished, %ui had another status, %ui other tags; "
                          "repaired", &rec->environment->name, rec->listed,
                          rec->missing, rec->vanished, rec->status,
                          rec->tags);
        }
    }

    ngx_nango_reconcile_abandon(rec);
    ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_IDLE);
}


static void
ngx_nango_reconcile_abandon(ngx_nango_reconcile_t *rec)
{
    if (rec->transfer) {
        ngx_nango_transfer_abandon(rec->transfer);
        rec->transfer = NULL;
    }

    free(rec->filter);
    rec->filter = NULL;

    free(rec->asked);
    rec->asked = NULL;

    rec->phase = NGX_NANGO_RECONCILE_NONE;
}


static void
ngx_nango_reconcile_again(ngx_nango_reconcile_t *rec, ngx_msec_t ms)
{
    if (rec->event.timer_set) {
        ngx_del_timer(&rec->event);
    }

    if (!ngx_exiting) {
        ngx_add_timer(&rec->event, ms);
    }
}


/* Takes path over. */

static ngx_int_t
ngx_nango_reconcile_ask(ngx_nango_reconcile_t *rec, char *path,
    ngx_nango_transfer_pt handler)
{
    ngx_nango_transfer_t  *t;

    t = ngx_nango_transfer_create();

    if (t == NULL || path == NULL) {
        free(t);
        free(path);
        return NGX_ERROR;
    }

    t->environment = rec->environment;
    t->method = "GET";
    t->path = path;
    t->path_memory = path;
    t->handler = handler;
    t->data = rec;

    if (ngx_nango_transfer_start(t) != NGX_OK) {
        ngx_nango_transfer_free(t);
        return NGX_ERROR;
    }

    rec->transfer = t;

    /* Not waited for by a worker that exits, or that does not lead any more. */

    ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_IDLE);

    return NGX_OK;
}


/* NGX_OK: it is a reply; NGX_AGAIN: to be asked again; NGX_ERROR: failed. */

static ngx_int_t
ngx_nango_reconcile_answered(ngx_nango_reconcile_t *rec,
    ngx_nango_transfer_t *t)
{
    rec->transfer = NULL;

    if (t->outcome == NGX_NANGO_TRANSFER_DONE) {

        if (t->status != 429) {
            return NGX_OK;
        }

        (void) ngx_nango_account_limited(&rec->environment->account,
                                         t->retry_after, ngx_cycle->log);
        return NGX_AGAIN;
    }

    if (!rec->failed) {
        rec->failed = 1;
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: environment \"%V\" cannot be compared with "
                      "Nango: %s", &rec->environment->name,
                      t->error ? t->error : "no answer in time");
    }

    return NGX_ERROR;
}


static void
ngx_nango_reconcile_list(ngx_nango_reconcile_t *rec)
{
    char  *path;

    path = malloc(sizeof("/connections?limit=&page=") + 2 * NGX_INT_T_LEN);

    if (path) {
        (void) ngx_sprintf((u_char *) path, "/connections?limit=%ui&page=%ui%Z",
                           rec->limit, rec->page);
    }

    if (ngx_nango_reconcile_ask(rec, path, ngx_nango_reconcile_listed)
        != NGX_OK)
    {
        ngx_nango_reconcile_end(rec, NGX_NANGO_RECONCILE_RETRY);
    }
}


static void
ngx_nango_reconcile_listed(ngx_nango_transfer_t *t)
{
    ngx_int_t               rc;
    ngx_uint_t              n;
    nango_api_error_t       error;
    ngx_nango_reconcile_t  *rec;

    rec = t->data;

    /* Pages that are too long: shorter ones, from where this one begins. */

    if (t->outcome == NGX_NANGO_TRANSFER_MALFORMED && rec->limit > 1) {
        rec->transfer = NULL;
        rec->limit /= 2;

        if (rec->phase == NGX_NANGO_RECONCILE_REPAIR
            && rec->npages <= NGX_NANGO_RECONCILE_PAGES)
        {
            rec->npages = NGX_NANGO_RECONCILE_PAGES + 1;
            rec->page = 0;

        } else {
            rec->page *= 2;
        }

        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_NEXT);
        return;
    }

    rc = ngx_nango_reconcile_answered(rec, t);

    if (rc == NGX_AGAIN) {
        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_LOW);
        return;
    }

    n = 0;

    if (rc == NGX_OK) {
        rc = NGX_ERROR;

        if (t->status == 200 && t->json) {
            rec->differs = 0;
            rc = ngx_nango_reconcile_page(rec, ngx_nango_str(&t->reply), &n);
        }

        if (rc == NGX_BUSY) {
            /* The store is not to be read or written now. */
            ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_LOW);
            return;
        }

        if (rc == NGX_ERROR && !rec->failed) {
            rec->failed = 1;
            nango_api_error_parse(&error, ngx_nango_str(&t->reply));

            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                          "nango: environment \"%V\" cannot be compared with "
                          "Nango: GET /connections answered %ui, not a list: "
                          "\"%s\", \"%s\"", &rec->environment->name, t->status,
                          error.code, error.message);
        }
    }

    if (rc != NGX_OK) {
        ngx_nango_reconcile_end(rec, NGX_NANGO_RECONCILE_RETRY);
        return;
    }

    ngx_nango_reconcile_turn(rec, n);
    ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_NEXT);
}


/* To the next page, behind one of n connections, or to the next phase. */

static void
ngx_nango_reconcile_turn(ngx_nango_reconcile_t *rec, ngx_uint_t n)
{
    if (rec->phase == NGX_NANGO_RECONCILE_LIST) {
        rec->listed += n;

        if (rec->differs) {
            ngx_nango_reconcile_note(rec);
        }

    } else if (rec->npages <= NGX_NANGO_RECONCILE_PAGES) {
        ngx_nango_reconcile_repairs(rec);
        return;
    }

    if (n == rec->limit) {
        rec->page++;
        return;
    }

    rec->phase = (rec->phase == NGX_NANGO_RECONCILE_LIST)
                 ? NGX_NANGO_RECONCILE_COUNT : NGX_NANGO_RECONCILE_CHECK;

    ngx_memzero(rec->key, NANGO_KEY_LEN);
}


static void
ngx_nango_reconcile_note(ngx_nango_reconcile_t *rec)
{
    if (rec->npages < NGX_NANGO_RECONCILE_PAGES) {
        rec->pages[rec->npages].page = rec->page;
        rec->pages[rec->npages].limit = rec->limit;
        rec->npages++;

    } else {
        rec->npages = NGX_NANGO_RECONCILE_PAGES + 1;
    }
}


/* To the first page that was noted, the next one, or behind them. */

static void
ngx_nango_reconcile_repairs(ngx_nango_reconcile_t *rec)
{
    if (rec->phase != NGX_NANGO_RECONCILE_REPAIR) {
        rec->phase = NGX_NANGO_RECONCILE_REPAIR;
        rec->page = 0;
        rec->next = 0;
    }

    if (rec->npages > NGX_NANGO_RECONCILE_PAGES) {
        return;
    }

    if (rec->next < rec->npages) {
        rec->page = rec->pages[rec->next].page;
        rec->limit = rec->pages[rec->next].limit;
        rec->next++;
        return;
    }

    rec->phase = NGX_NANGO_RECONCILE_CHECK;
    ngx_memzero(rec->key, NANGO_KEY_LEN);
}


/* NGX_BUSY: the store; the page is asked for again. */

static ngx_int_t
ngx_nango_reconcile_page(ngx_nango_reconcile_t *rec, nango_str_t reply,
    ngx_uint_t *n)
{
    ngx_int_t             rc;
    nango_str_t           name, element;
    nango_event_t         event;
    nango_reader_t       *reader;
    nango_json_walk_t     w;
    nango_json_member_t   list[] = {
        { nango_string("connections"), nango_null_str }
    };

    if (nango_json_members(reply, list, 1) != NANGO_JSON_OBJECT
        || !nango_json_walk(&w, list[0].value) || w.object)
    {
        return NGX_ERROR;
    }

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {
        return NGX_BUSY;
    }

    rc = NGX_OK;
    *n = 0;

    while (rc == NGX_OK && nango_json_next(&w, &name, &element) == 1) {
        (*n)++;

        if (nango_event_parse_connection(&event, element) != 0) {
            rc = NGX_BUSY;
            break;
        }

        rc = ngx_nango_reconcile_compare(rec, reader, &event, 0);

        nango_event_free(&event);
    }

    nango_reader_end(reader);

    return rc;
}


/*
 * Compares what Nango says of a connection, in a list or because it was asked,
 * and repairs.  NGX_OK, NGX_BUSY.
 */

static ngx_int_t
ngx_nango_reconcile_compare(ngx_nango_reconcile_t *rec, nango_reader_t *reader,
    nango_event_t *event, ngx_uint_t asked)
{
    int                  rc;
    u_char               key[NANGO_KEY_LEN];
    ngx_uint_t           same;
    nango_error_t        err;
    nango_connection_t   c;

    if (event->integration.data == NULL || event->connection_id.data == NULL) {
        /* Ids that no webhook would be understood with either. */
        return NGX_OK;
    }

    if (nango_connection_key(key, ngx_nango_str(&rec->environment->name),
                             event->integration, event->connection_id)
        != 0)
    {
        return NGX_BUSY;
    }

    if (!asked) {
        ngx_nango_filter_add(rec, key);
    }

    rc = nango_reader_connection(reader, key, &c, &err);

    if (rc == -1) {
        return NGX_BUSY;
    }

    if (rc == 0) {
        return ngx_nango_reconcile_repair(rec, reader, event, &rec->missing,
                                          NGX_NANGO_REPAIRS_MISSING);
    }

    if (c.checked_at + NGX_NANGO_RECONCILE_MARGIN > rec->started) {
        return NGX_OK;
    }

    if (c.status == NANGO_STATUS_DELETED) {

        /* A list may be older than the deletion: only if it was asked. */

        if (!asked) {
            return NGX_OK;
        }

        return ngx_nango_reconcile_repair(rec, reader, event, &rec->missing,
                                          NGX_NANGO_REPAIRS_MISSING);
    }

    same = ((event->success == NANGO_SUCCESS_TRUE)
            == (c.status == NANGO_STATUS_VALID));

    /* Of one that is known to be invalid, why is known too. */

    if (!same && event->success == NANGO_SUCCESS_FALSE) {
        event->error_type = nango_str("auth", 4);
    }

    /* An override says both, as it does from Nango. */

    if (event->ntags && !ngx_nango_reconcile_same_tags(&c, event)) {
        event->operation = NANGO_OP_OVERRIDE;

        return ngx_nango_reconcile_repair(rec, reader, event, &rec->tags,
                                          NGX_NANGO_REPAIRS_TAGS);
    }

    if (same) {
        return NGX_OK;
    }

    event->operation = NANGO_OP_REFRESH;

    return ngx_nango_reconcile_repair(rec, reader, event, &rec->status,
                                      NGX_NANGO_REPAIRS_STATUS);
}


static ngx_uint_t
ngx_nango_reconcile_same_tags(const nango_connection_t *c,
    const nango_event_t *event)
{
    size_t       i;
    nango_str_t  value;

    if (c->ntags != event->ntags) {
        return 0;
    }

    for (i = 0; i < event->ntags; i++) {
        value = nango_connection_tag(c, event->tags[i].name);

        if (value.data == NULL || !nango_str_eq(value, event->tags[i].value)) {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_nango_reconcile_repair(ngx_nango_reconcile_t *rec, nango_reader_t *reader,
    nango_event_t *event, ngx_uint_t *count, ngx_nango_counter_e counter)
{
    ngx_uint_t        broken;
    ngx_nango_job_t  *job;

    if (rec->phase == NGX_NANGO_RECONCILE_LIST && !rec->few) {
        rec->differs = 1;
        return NGX_OK;
    }

    /*
     * What is on its way to the state may say something of this one: a repair
     * would undo a deletion.  The committer sees to what comes after this.
     */

    if (nango_reader_last(reader) > nango_reader_applied(reader)) {
        ngx_nango_want_fold();
        return NGX_BUSY;
    }

    job = ngx_nango_reconcile_job(rec, event);

    if (job == NULL) {
        return NGX_BUSY;
    }

    job->write.unseen = nango_reader_applied(reader) + 1;
    broken = (job->then != NULL);

    if (ngx_nango_job_submit(job) != NGX_OK) {
        ngx_nango_job_free(job);
        return NGX_BUSY;
    }

    (*count)++;
    ngx_nango_count(counter);

    if (broken) {
        rec->status++;
        ngx_nango_count(NGX_NANGO_REPAIRS_STATUS);
    }

    return NGX_OK;
}


/* A creation is a success; that it is broken by now is told next. */

static ngx_nango_job_t *
ngx_nango_reconcile_job(ngx_nango_reconcile_t *rec, nango_event_t *event)
{
    ngx_uint_t        broken;
    ngx_nango_job_t  *job;

    broken = (event->operation == NANGO_OP_CREATION
              && event->success == NANGO_SUCCESS_FALSE);

    if (broken) {
        event->success = NANGO_SUCCESS_TRUE;
    }

    job = ngx_nango_event_job(rec->environment, NANGO_SOURCE_REPAIR, event);

    if (job == NULL || !broken) {
        return job;
    }

    event->operation = NANGO_OP_REFRESH;
    event->success = NANGO_SUCCESS_FALSE;
    event->error_type = nango_str("auth", 4);

    job->then = ngx_nango_event_job(rec->environment, NANGO_SOURCE_REPAIR,
                                    event);

    if (job->then == NULL) {
        ngx_nango_job_free(job);
        return NULL;
    }

    return job;
}


static void
ngx_nango_reconcile_count(ngx_nango_reconcile_t *rec)
{
    int              rc;
    nango_error_t    err;
    nango_reader_t  *reader;

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {
        ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_LOW);
        return;
    }

    rc = nango_reader_all(reader, rec->key, NGX_NANGO_RECONCILE_PORTION,
                          ngx_nango_reconcile_counted, rec, &err);

    nango_reader_end(reader);

    if (rc == -1) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "nango: %s", err.text);
        ngx_nango_reconcile_end(rec, NGX_NANGO_RECONCILE_RETRY);
        return;
    }

    if (rc == 0) {

        if (rec->gone > NGX_NANGO_RECONCILE_FEW
            && rec->gone * 5 > rec->live)
        {
            ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                          "nango: %uL of %uL connections of environment "
                          "\"%V\" are not in Nango's list; nothing is "
                          "changed, since its api_key probably belongs to "
                          "another environment", rec->gone, rec->live,
                          &rec->environment->name);

            ngx_nango_reconcile_end(rec, 0);
            return;
        }

        ngx_nango_reconcile_repairs(rec);
    }

    ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_NEXT);
}


static int
ngx_nango_reconcile_counted(void *data, const nango_connection_t *c)
{
    ngx_nango_reconcile_t *rec = data;

    if (c->status == NANGO_STATUS_DELETED
        || !nango_str_eq(c->environment,
                         ngx_nango_str(&rec->environment->name)))
    {
        return 0;
    }

    rec->live++;

    if (c->checked_at + NGX_NANGO_RECONCILE_MARGIN <= rec->started
        && !ngx_nango_filter_has(rec, c->key))
    {
        rec->gone++;
    }

    return 0;
}


static void
ngx_nango_reconcile_check(ngx_nango_reconcile_t *rec)
{
    int              rc;
    char            *path;
    ngx_atomic_t    *last;
    nango_error_t    err;
    nango_reader_t  *reader;

    if (rec->asked == NULL) {

        reader = ngx_nango_store_snapshot();

        if (reader == NULL) {
            ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_LOW);
            return;
        }

        rc = nango_reader_all(reader, rec->key, NGX_NANGO_RECONCILE_PORTION,
                              ngx_nango_reconcile_checked, rec, &err);

        nango_reader_end(reader);

        if (rc == -1) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "nango: %s",
                          err.text);
            ngx_nango_reconcile_end(rec, NGX_NANGO_RECONCILE_RETRY);
            return;
        }

        if (rec->asked == NULL) {

            if (rc == 0) {
                last = ngx_nango_compared(rec->environment->key);

                if (last) {
                    *last = (ngx_atomic_uint_t) ngx_nango_now();
                }

                ngx_nango_reconcile_end(rec, 0);

            } else {
                ngx_nango_reconcile_again(rec, NGX_NANGO_RECONCILE_NEXT);
            }

            return;
        }
    }

    path = nango_connection_path(rec->connection_id, rec->integration);

    if (ngx_nango_reconcile_ask(rec, path, ngx_nango_reconcile_confirmed)
        != NGX_OK)
    {
        ngx_nango_reconcile_end(rec, NGX_NANGO_RECONCILE_RETRY);
    }
}


static int
ngx_nango_reconcile_checked(void *data, const nango_connection_t *c)
{
    ngx_nango_reconcile_t *rec = data;

    ngx_uint_t  listed;

    if (!nango_str_eq(c->environment, ngx_nango_str(&rec->environment->name))
        || c->checked_at + NGX_NANGO_RECONCILE_MARGIN > rec->started
        || !nango_connection_id_usable(c->connection_id))
    {
        return 0;
    }

    /* Live and not listed, or listed and deleted. */

    listed = ngx_nango_filter_has(rec, c->key);

    if (listed != (c->status == NANGO_STATUS_DELETED)) {
        return 0;
    }

    return ngx_nango_reconcile_want(rec, c) == NGX_OK;
}


/* NGX_ERROR: no memory; it is left for the next run. */

static ngx_int_t
ngx_nango_reconcile_want(ngx_nango_reconcile_t *rec,
    const nango_connection_t *c)
{
    rec->asked = malloc(c->integration.len + c->connection_id.len + 1);

    if (rec->asked == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(rec->asked, c->integration.data, c->integration.len);
    ngx_memcpy(rec->asked + c->integration.len, c->connection_id.data,
               c->connection_id.len);

    rec->integration = nango_str(rec->asked, c->integration.len);
    rec->connection_id = nango_str(rec->asked + c->integration.len,
                                   c->connection_id.len);

    ngx_memcpy(rec->asked_key, c->key, NANGO_KEY_LEN);

    return NGX_OK;
}


static void
ngx_nango_reconcile_confirmed(ngx_nango_transfer_t *t)
{
    ngx_int_t               rc;
    ngx_nango_reconcile_t  *rec;

    rec = t->data;

    rc = ngx_nango_reconcile_answered(rec, t);

    if (rc == NGX_OK) {
        rc = ngx_nango_reconcile_confirm(rec, t);
    }

    if (rc == NGX_ERROR) {
        ngx_nango_reconcile_end(rec, NGX_NANGO_RECONCILE_RETRY);
        return;
    }

    if (rc == NGX_OK) {
        free(rec->asked);
        rec->asked = NULL;
    }

    ngx_nango_reconcile_again(rec, rc == NGX_OK ? NGX_NANGO_RECONCILE_NEXT
                                                : NGX_NANGO_RECONCILE_LOW);
}


/* NGX_BUSY: the store; Nango is asked again. */

static ngx_int_t
ngx_nango_reconcile_confirm(ngx_nango_reconcile_t *rec,
    ngx_nango_transfer_t *t)
{
    int                  rc;
    ngx_int_t            ok;
    nango_error_t        err;
    nango_event_t        event;
    nango_reader_t      *reader;
    nango_api_error_t    error;
    nango_connection_t   c;

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {
        return NGX_BUSY;
    }

    ok = NGX_OK;

    if (t->status == 200 && t->json) {

        if (nango_event_parse_connection(&event, ngx_nango_str(&t->reply))
            != 0)
        {
            ok = NGX_BUSY;

        } else if (nango_str_eq(event.integration, rec->integration)
                   && nango_str_eq(event.connection_id, rec->connection_id))
        {
            ok = ngx_nango_reconcile_compare(rec, reader, &event, 1);
        }

        nango_event_free(&event);
        nango_reader_end(reader);

        return ok;
    }

    nango_api_error_parse(&error, ngx_nango_str(&t->reply));

    rc = nango_reader_connection(reader, rec->asked_key, &c, &err);

    ngx_memzero(&event, sizeof(nango_event_t));

    event.type = NANGO_TYPE_AUTH;
    event.integration = rec->integration;
    event.connection_id = rec->connection_id;

    if (rc != 1 || c.status == NANGO_STATUS_DELETED
        || c.checked_at + NGX_NANGO_RECONCILE_MARGIN > rec->started)
    {
        ok = (rc == -1) ? NGX_BUSY : NGX_OK;

    } else if (t->status == 404
               && ngx_strcmp(error.code, "not_found") == 0)
    {
        event.operation = NANGO_OP_DELETION;
        event.success = NANGO_SUCCESS_TRUE;

        ok = ngx_nango_reconcile_repair(rec, reader, &event, &rec->vanished,
                                        NGX_NANGO_REPAIRS_VANISHED);

    } else if (ngx_strcmp(error.code, "invalid_credentials") == 0) {

        if (c.status == NANGO_STATUS_VALID) {
            event.operation = NANGO_OP_REFRESH;
            event.success = NANGO_SUCCESS_FALSE;
            event.error_type = nango_str(error.code, ngx_strlen(error.code));
            event.error_text = nango_str(error.message,
                                         ngx_strlen(error.message));

            ok = ngx_nango_reconcile_repair(rec, reader, &event, &rec->status,
                                            NGX_NANGO_REPAIRS_STATUS);
        }

    } else {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: environment \"%V\" cannot be compared with "
                      "Nango: GET /connections/{connectionId} answered %ui: "
                      "\"%s\", \"%s\"", &rec->environment->name, t->status,
                      error.code, error.message);
        ok = (t->status == 401) ? NGX_ERROR : NGX_OK;
    }

    nango_reader_end(reader);

    return ok;
}


static void
ngx_nango_filter_add(ngx_nango_reconcile_t *rec, const u_char *key)
{
    uint64_t    bit;
    ngx_uint_t  i;

    for (i = 0; i < 4; i++) {
        bit = ngx_nango_filter_bit(rec, key, i);
        rec->filter[bit / 8] |= (u_char) (1 << (bit % 8));
    }
}


static ngx_uint_t
ngx_nango_filter_has(ngx_nango_reconcile_t *rec, const u_char *key)
{
    uint64_t    bit;
    ngx_uint_t  i;

    for (i = 0; i < 4; i++) {
        bit = ngx_nango_filter_bit(rec, key, i);

        if (!(rec->filter[bit / 8] & (1 << (bit % 8)))) {
            return 0;
        }
    }

    return 1;
}


/* Keys are of SHA-256; the seed makes other positions of them in each run. */

static uint64_t
ngx_nango_filter_bit(ngx_nango_reconcile_t *rec, const u_char *key,
    ngx_uint_t i)
{
    uint64_t  a, b;

    ngx_memcpy(&a, key, sizeof(uint64_t));
    ngx_memcpy(&b, key + sizeof(uint64_t), sizeof(uint64_t));

    a ^= rec->seed;
    a *= 0x9e3779b97f4a7c15;
    a ^= a >> 29;

    return (a + i * (b | 1)) & (rec->bits - 1);
}
