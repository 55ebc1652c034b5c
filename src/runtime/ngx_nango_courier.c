/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_courier.h.  One mutex guards what both sides touch, and is
 * held for the time of a few pointers, or of a report's copy.
 */

#include "ngx_nango_courier.h"

#include <pthread.h>
#include <sys/eventfd.h>


/* Of one reading. */
#define NGX_NANGO_COURIER_EVENTS   1024
#define NGX_NANGO_COURIER_BYTES    (4 * 1024 * 1024)
#define NGX_NANGO_COURIER_EXPIRE   4096

/* ms */
#define NGX_NANGO_COURIER_LOOK     1000

/* Reports that are not committed, in events: beyond it nothing is read. */
#define NGX_NANGO_COURIER_SETTLED  65536

/* Lanes that are out, as chains of a hash. */
#define NGX_NANGO_COURIER_LANES    1024


typedef struct ngx_nango_out_s  ngx_nango_out_t;

struct ngx_nango_out_s {
    ngx_nango_out_t         *next;
    u_char                   lane[NANGO_KEY_LEN];
};


typedef struct {
    nango_subscriber_t       subscriber;

    /* Under the mutex. */
    uint64_t                 epoch;
    ngx_nango_message_t     *messages;
    ngx_nango_message_t    **messages_last;
    nango_report_t           report;        /* being gathered */
    uint64_t                 report_number;
    ngx_uint_t               reported;
    size_t                   room;
    ngx_uint_t               rows;
    ngx_uint_t               expire;

    /* The thread's. */
    nango_report_t           taken;         /* to be committed */
    uint64_t                 taken_number;
    uint64_t                 committed;     /* number */
    uint64_t                 cursor;        /* on disk */
    uint64_t                 position;      /* read up to */
    uint64_t                 due_at;        /* rows; 0: to be looked at */
    ngx_uint_t               none_due;
    ngx_uint_t               more;
    ngx_uint_t               parked;
    ngx_uint_t               absent;        /* nobody knows where it is */
    ngx_nango_out_t         *out[NGX_NANGO_COURIER_LANES];
} ngx_nango_desk_t;


typedef struct {
    ngx_nango_desk_t        *desks;
    ngx_uint_t               n;
    ngx_log_t               *log;
    int                      loop_fd;
    int                      thread_fd;
    pthread_mutex_t          mutex;

    /* Under the mutex. */
    ngx_uint_t               reported;      /* desks with a report */
    ngx_uint_t               leave;
    ngx_uint_t               restart;

    /* The thread's. */
    nango_reader_t          *reader;        /* NULL: it has not begun */
    nango_settlement_t      *settlements;
    ngx_uint_t               taken;         /* how many were handed over */
    uint64_t                 applied;
    uint64_t                 txnid;         /* of the state: our own last */
    uint64_t                 generation;    /* that knows the subscribers */
    uint64_t                 snapshot;      /* the oldest one looked at */
} ngx_nango_courier_t;


static nango_rc_e ngx_nango_courier_no_memory(nango_error_t *err);
static nango_rc_e ngx_nango_desk_begin(ngx_nango_desk_t *desk,
    nango_error_t *err);
static void ngx_nango_desk_clear(ngx_nango_desk_t *desk);
static void ngx_nango_desk_post(ngx_nango_desk_t *desk,
    ngx_nango_message_t *m);
static nango_rc_e ngx_nango_desk_ledger(ngx_nango_desk_t *desk,
    nango_ledger_t *ledger, ngx_uint_t *known, nango_error_t *err);
static nango_rc_e ngx_nango_desk_read(nango_store_t *store,
    ngx_nango_desk_t *desk, size_t room, ngx_uint_t expire,
    nango_error_t *err);
static nango_rc_e ngx_nango_desk_rows(nango_store_t *store,
    ngx_nango_desk_t *desk, size_t rows, uint64_t now, nango_error_t *err);
static nango_rc_e ngx_nango_desk_expire(nango_store_t *store,
    ngx_nango_desk_t *desk, uint64_t now, nango_error_t *err);
static nango_rc_e ngx_nango_desk_refresh(ngx_nango_desk_t *desk,
    nango_error_t *err);
static ngx_int_t ngx_nango_desk_park(ngx_nango_desk_t *desk,
    ngx_uint_t parked);
static size_t ngx_nango_desk_released(ngx_nango_desk_t *desk, size_t n,
    size_t k);
static int ngx_nango_desk_is_out(void *data,
    const unsigned char lane[NANGO_KEY_LEN]);
static ngx_int_t ngx_nango_desk_put_out(ngx_nango_desk_t *desk,
    const u_char *lane);
static void ngx_nango_desk_take_in(ngx_nango_desk_t *desk,
    const u_char *lane);
static ngx_uint_t ngx_nango_lane_chain(const u_char *lane);
static ngx_int_t ngx_nango_report_append(nango_report_t *to,
    nango_report_t *from);
static void ngx_nango_report_free(nango_report_t *report);
static void ngx_nango_courier_wake(int fd);


static ngx_nango_courier_t  ngx_nango_courier = { .loop_fd = -1,
                                                  .thread_fd = -1 };


ngx_int_t
ngx_nango_courier_init(ngx_nango_subscriber_t **subscribers, ngx_uint_t n,
    ngx_log_t *log)
{
    ngx_uint_t            i;
    ngx_nango_desk_t     *desk;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    ngx_memzero(cr, sizeof(ngx_nango_courier_t));

    cr->loop_fd = -1;
    cr->thread_fd = -1;
    cr->log = log;

    if (n == 0) {
        return NGX_OK;
    }

    cr->desks = ngx_calloc(n * sizeof(ngx_nango_desk_t), log);
    cr->settlements = ngx_calloc(n * sizeof(nango_settlement_t), log);
    cr->loop_fd = eventfd(0, EFD_CLOEXEC|EFD_NONBLOCK);
    cr->thread_fd = eventfd(0, EFD_CLOEXEC|EFD_NONBLOCK);

    if (cr->desks == NULL || cr->settlements == NULL || cr->loop_fd == -1
        || cr->thread_fd == -1)
    {
        ngx_nango_courier_exit();
        return NGX_ERROR;
    }

    (void) pthread_mutex_init(&cr->mutex, NULL);

    for (i = 0; i < n; i++) {
        desk = &cr->desks[i];

        desk->subscriber.environment =
                             ngx_nango_str(&subscribers[i]->environment->name);
        desk->subscriber.name = ngx_nango_str(&subscribers[i]->name);
        desk->subscriber.types = (unsigned) subscribers[i]->types;
        desk->subscriber.repairs = subscribers[i]->repairs ? 1 : 0;
        desk->subscriber.from_start = subscribers[i]->from_start ? 1 : 0;
        desk->subscriber.max_age_ms = subscribers[i]->max_age;

        ngx_memcpy(desk->subscriber.key, subscribers[i]->key, NANGO_KEY_LEN);

        desk->messages_last = &desk->messages;
        desk->report_number = 1;
    }

    cr->n = n;

    return NGX_OK;
}


void
ngx_nango_courier_exit(void)
{
    ngx_uint_t            i;
    ngx_nango_message_t  *m;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    for (i = 0; i < cr->n; i++) {

        while ((m = ngx_nango_courier_receive(i)) != NULL) {
            ngx_nango_courier_free(m);
        }

        ngx_nango_desk_clear(&cr->desks[i]);
        ngx_nango_report_free(&cr->desks[i].report);
        ngx_nango_report_free(&cr->desks[i].taken);
    }

    if (cr->n) {
        (void) pthread_mutex_destroy(&cr->mutex);
    }

    if (cr->loop_fd != -1) {
        (void) close(cr->loop_fd);
    }

    if (cr->thread_fd != -1) {
        (void) close(cr->thread_fd);
    }

    if (cr->desks) {
        ngx_free(cr->desks);
    }

    if (cr->settlements) {
        ngx_free(cr->settlements);
    }

    ngx_memzero(cr, sizeof(ngx_nango_courier_t));

    cr->loop_fd = -1;
    cr->thread_fd = -1;
}


int
ngx_nango_courier_loop_fd(void)
{
    return ngx_nango_courier.loop_fd;
}


int
ngx_nango_courier_thread_fd(void)
{
    return ngx_nango_courier.thread_fd;
}


static void
ngx_nango_courier_wake(int fd)
{
    static uint64_t  one = 1;

    if (write(fd, &one, sizeof(one)) != sizeof(one)) {
        /* it is awake */
    }
}


ngx_nango_message_t *
ngx_nango_courier_receive(ngx_uint_t i)
{
    ngx_nango_desk_t     *desk;
    ngx_nango_message_t  *m;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;
    desk = &cr->desks[i];

    (void) pthread_mutex_lock(&cr->mutex);

    m = desk->messages;

    if (m) {
        desk->messages = m->next;

        if (desk->messages == NULL) {
            desk->messages_last = &desk->messages;
        }
    }

    (void) pthread_mutex_unlock(&cr->mutex);

    return m;
}


void
ngx_nango_courier_free(ngx_nango_message_t *m)
{
    nango_delivery_t  *d;

    while (m->deliveries) {
        d = m->deliveries;
        m->deliveries = d->next;
        nango_delivery_free(d);
    }

    free(m->settled);
    free(m);
}


ngx_int_t
ngx_nango_courier_report(ngx_uint_t i, uint64_t epoch, nango_queue_t *q,
    size_t room, ngx_uint_t rows, ngx_uint_t expire, uint64_t *wait)
{
    int                   rc;
    ngx_uint_t            wake;
    ngx_nango_desk_t     *desk;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;
    desk = &cr->desks[i];

    wake = 0;
    *wait = 0;

    (void) pthread_mutex_lock(&cr->mutex);

    if (epoch != desk->epoch) {

        /* A message is on its way that says so. */

        (void) pthread_mutex_unlock(&cr->mutex);
        return NGX_OK;
    }

    rc = nango_queue_report(q, desk->report_number, ngx_nango_now(),
                            &desk->report, wait);

    if (!desk->reported
        && (desk->report.nsettled || desk->report.park
            || desk->report.nreleased))
    {
        desk->reported = 1;
        cr->reported++;
        wake = 1;
    }

    /* Messages that were not received yet take of the room. */

    if (desk->messages == NULL) {

        if ((desk->room == 0 && room) || rows > desk->rows
            || (expire && !desk->expire))
        {
            wake = 1;
        }

        desk->room = room;
        desk->rows = rows;
        desk->expire = expire;
    }

    (void) pthread_mutex_unlock(&cr->mutex);

    if (wake) {
        ngx_nango_courier_wake(cr->thread_fd);
    }

    return (rc == 0) ? NGX_OK : NGX_ERROR;
}


void
ngx_nango_courier_restart(void)
{
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    (void) pthread_mutex_lock(&cr->mutex);
    cr->restart = 1;
    (void) pthread_mutex_unlock(&cr->mutex);

    ngx_nango_courier_wake(cr->thread_fd);
}


void
ngx_nango_courier_leave(void)
{
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    (void) pthread_mutex_lock(&cr->mutex);
    cr->leave = 1;
    (void) pthread_mutex_unlock(&cr->mutex);

    ngx_nango_courier_wake(cr->thread_fd);
}


ngx_uint_t
ngx_nango_courier_leaving(void)
{
    ngx_uint_t            leave;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    if (cr->n == 0) {
        return 0;
    }

    (void) pthread_mutex_lock(&cr->mutex);
    leave = cr->leave;
    (void) pthread_mutex_unlock(&cr->mutex);

    return leave;
}


nango_rc_e
ngx_nango_courier_register(nango_store_t *store, nango_error_t *err)
{
    uint64_t              generation;
    nango_rc_e            rc;
    ngx_uint_t            i;
    nango_subscriber_t   *subscribers;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    subscribers = malloc(cr->n * sizeof(nango_subscriber_t));

    if (subscribers == NULL) {
        return ngx_nango_courier_no_memory(err);
    }

    for (i = 0; i < cr->n; i++) {
        subscribers[i] = cr->desks[i].subscriber;
    }

    /* Before, so that what is opened in between is another one. */

    generation = nango_store_generation(store);

    rc = nango_delivery_register(store, subscribers, cr->n, ngx_nango_now(),
                                 err);

    free(subscribers);

    /* The fold waits for one in which they are known, once there was one. */

    if (rc == NANGO_OK && generation) {
        cr->generation = generation;
    }

    return rc;
}


nango_rc_e
ngx_nango_courier_begin(nango_store_t *store, nango_error_t *err)
{
    nango_rc_e            rc;
    ngx_uint_t            i;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    if (cr->n == 0) {
        return NANGO_OK;
    }

    if (cr->reader == NULL) {
        cr->reader = nango_reader_create(store);
    }

    if (cr->reader == NULL) {
        return ngx_nango_courier_no_memory(err);
    }

    rc = ngx_nango_courier_register(store, err);

    cr->snapshot = UINT64_MAX;

    for (i = 0; rc == NANGO_OK && i < cr->n; i++) {
        rc = ngx_nango_desk_begin(&cr->desks[i], err);
    }

    if (rc != NANGO_OK) {
        ngx_nango_courier_end();
        return rc;
    }

    cr->applied = UINT64_MAX;
    cr->txnid = cr->snapshot;

    ngx_nango_courier_wake(cr->loop_fd);

    return NANGO_OK;
}


void
ngx_nango_courier_end(void)
{
    ngx_uint_t            i;
    ngx_nango_desk_t     *desk;
    ngx_nango_message_t  *m;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    if (cr->reader == NULL) {
        return;
    }

    for (i = 0; i < cr->n; i++) {
        desk = &cr->desks[i];

        ngx_nango_desk_clear(desk);

        m = calloc(1, sizeof(ngx_nango_message_t));

        if (m) {
            m->end = 1;
            ngx_nango_desk_post(desk, m);
        }
    }

    ngx_nango_courier_wake(cr->loop_fd);

    nango_reader_free(cr->reader);
    cr->reader = NULL;
}


ngx_uint_t
ngx_nango_courier_begun(void)
{
    return (ngx_nango_courier.n == 0 || ngx_nango_courier.reader != NULL);
}


static nango_rc_e
ngx_nango_courier_no_memory(nango_error_t *err)
{
    err->code = NANGO_ENOMEM;
    (void) ngx_cpystrn((u_char *) err->text, (u_char *) "no memory",
                       sizeof(err->text));
    return NANGO_ENOMEM;
}


static nango_rc_e
ngx_nango_desk_begin(ngx_nango_desk_t *desk, nango_error_t *err)
{
    ngx_str_t             name, environment;
    nango_rc_e            rc;
    ngx_uint_t            known;
    nango_ledger_t        ledger;
    ngx_nango_message_t  *m;

    rc = ngx_nango_desk_ledger(desk, &ledger, &known, err);

    if (rc != NANGO_OK) {
        return rc;
    }

    m = calloc(1, sizeof(ngx_nango_message_t));

    if (m == NULL) {
        return ngx_nango_courier_no_memory(err);
    }

    ngx_nango_desk_clear(desk);

    /* One that cannot be read does not hold up the others. */

    desk->absent = !known;

    if (desk->absent) {
        name.len = desk->subscriber.name.len;
        name.data = (u_char *) desk->subscriber.name.data;
        environment.len = desk->subscriber.environment.len;
        environment.data = (u_char *) desk->subscriber.environment.data;

        ngx_log_error(NGX_LOG_ERR, ngx_nango_courier.log, 0,
                      "nango: what the store has of subscriber \"%V\" of "
                      "environment \"%V\" cannot be read: nothing is "
                      "delivered to it", &name, &environment);

        m->end = 1;

    } else {
        desk->cursor = ledger.cursor;
        desk->position = ledger.cursor;
        desk->parked = (ledger.parked_at != 0);
        desk->due_at = 0;
        desk->none_due = 0;
        desk->more = 1;

        m->begin = 1;
        m->position = ledger.cursor;
    }

    ngx_nango_desk_post(desk, m);

    return NANGO_OK;
}


/* What was read or reported until now is of another epoch. */

static void
ngx_nango_desk_clear(ngx_nango_desk_t *desk)
{
    ngx_uint_t            i;
    ngx_nango_out_t      *out;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    (void) pthread_mutex_lock(&cr->mutex);

    desk->epoch++;
    desk->room = 0;
    desk->rows = 0;
    desk->expire = 0;

    desk->report.nsettled = 0;
    desk->report.nreleased = 0;
    desk->report.park = 0;
    desk->report.cursor = 0;
    desk->committed = desk->report_number++;

    if (desk->reported) {
        desk->reported = 0;
        cr->reported--;
    }

    (void) pthread_mutex_unlock(&cr->mutex);

    desk->taken.nsettled = 0;
    desk->taken.nreleased = 0;
    desk->taken.park = 0;
    desk->taken.cursor = 0;

    for (i = 0; i < NGX_NANGO_COURIER_LANES; i++) {

        while (desk->out[i]) {
            out = desk->out[i];
            desk->out[i] = out->next;
            free(out);
        }
    }
}


static void
ngx_nango_desk_post(ngx_nango_desk_t *desk, ngx_nango_message_t *m)
{
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    m->epoch = desk->epoch;
    m->number = desk->committed;
    m->parked = (desk->parked != 0);

    (void) pthread_mutex_lock(&cr->mutex);

    *desk->messages_last = m;
    desk->messages_last = &m->next;

    (void) pthread_mutex_unlock(&cr->mutex);
}


/* Not known: it is not there, or cannot be read. */

static nango_rc_e
ngx_nango_desk_ledger(ngx_nango_desk_t *desk, nango_ledger_t *ledger,
    ngx_uint_t *known, nango_error_t *err)
{
    int                   rc;
    nango_rc_e            code;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    code = nango_reader_begin(cr->reader, err);

    if (code != NANGO_OK) {
        return code;
    }

    cr->snapshot = ngx_min(cr->snapshot,
                           nango_reader_state_txnid(cr->reader));

    rc = nango_reader_ledger(cr->reader, desk->subscriber.key, ledger, err);

    nango_reader_end(cr->reader);

    *known = (rc == 1);

    return (rc == -1) ? err->code : NANGO_OK;
}


ngx_uint_t
ngx_nango_courier_reported(void)
{
    ngx_uint_t            reported;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    if (cr->n == 0) {
        return 0;
    }

    (void) pthread_mutex_lock(&cr->mutex);
    reported = cr->reported;
    (void) pthread_mutex_unlock(&cr->mutex);

    return reported;
}


void
ngx_nango_courier_settlements(nango_fold_options_t *options)
{
    ngx_uint_t            i, n;
    ngx_nango_desk_t     *desk;
    nango_settlement_t   *s;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;
    n = 0;

    options->settlements = cr->settlements;
    options->nsettlements = 0;

    /* A state that is new does not know the subscribers yet. */

    options->generation = cr->generation;

    if (cr->reader == NULL) {
        return;
    }

    for (i = 0; i < cr->n; i++) {
        desk = &cr->desks[i];

        (void) pthread_mutex_lock(&cr->mutex);

        if (ngx_nango_report_append(&desk->taken, &desk->report) == NGX_OK) {
            desk->taken_number = desk->report_number++;
        }

        (void) pthread_mutex_unlock(&cr->mutex);

        if (desk->taken.nsettled == 0 && !desk->taken.park
            && (desk->taken.cursor == 0
                || desk->taken.cursor == desk->cursor))
        {
            continue;
        }

        s = &cr->settlements[n++];

        ngx_memzero(s, sizeof(nango_settlement_t));
        ngx_memcpy(s->key, desk->subscriber.key, NANGO_KEY_LEN);

        s->cursor_before = desk->cursor;
        s->cursor = ngx_max(desk->taken.cursor, desk->cursor);
        s->settled = desk->taken.settled;
        s->nsettled = desk->taken.nsettled;
        s->park = desk->taken.park ? 1 : 0;
    }

    cr->taken = n;

    options->nsettlements = n;
}


void
ngx_nango_courier_committed(nango_store_t *store, ngx_uint_t committed,
    uint64_t applied)
{
    size_t                k, n;
    ngx_uint_t            i, j, park;
    nango_settled_t      *settled;
    ngx_nango_desk_t     *desk;
    nango_settlement_t   *s;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    if (cr->reader == NULL) {
        return;
    }

    cr->applied = applied;
    j = 0;

    for (i = 0; i < cr->n; i++) {
        desk = &cr->desks[i];
        s = NULL;

        /* Both are in the same order. */

        if (j < cr->taken
            && ngx_memcmp(cr->settlements[j].key, desk->subscriber.key,
                          NANGO_KEY_LEN)
               == 0)
        {
            s = &cr->settlements[j++];
        }

        if (s && s->stale) {

            /* Somebody else has led meanwhile, or has removed it. */

            ngx_nango_courier_end();
            return;
        }

        park = 0;

        if (s) {
            desk->cursor = s->cursor;
            park = (s->park && !desk->parked);
        }

        n = 0;

        for (k = 0; k < desk->taken.nsettled; k++) {
            n = ngx_nango_desk_released(desk, n, k);
            settled = &desk->taken.settled[k];

            /* Where it has rows, one of them may be due now. */

            if (settled->row || settled->kind == NANGO_SETTLED_WAITING) {
                desk->due_at = 0;
                desk->none_due = 0;
            }

            if (settled->held
                && ngx_nango_desk_put_out(desk, settled->lane) != NGX_OK)
            {
                ngx_nango_courier_end();
                return;
            }
        }

        (void) ngx_nango_desk_released(desk, n, k);

        desk->taken.nsettled = 0;
        desk->taken.nreleased = 0;
        desk->taken.park = 0;
        desk->committed = desk->taken_number;

        /* The queue knows; that it will be told of the end is what is new. */

        if (park && ngx_nango_desk_park(desk, 1) != NGX_OK) {
            ngx_nango_courier_end();
            return;
        }

        (void) pthread_mutex_lock(&cr->mutex);

        if (desk->reported && desk->report.nsettled == 0
            && desk->report.nreleased == 0 && !desk->report.park)
        {
            desk->reported = 0;
            cr->reported--;
        }

        (void) pthread_mutex_unlock(&cr->mutex);
    }

    /* One of our own, and nobody else's before it. */

    if (committed && nango_store_state_txnid(store) == cr->txnid + 1) {
        cr->txnid++;
    }
}


/* Lanes from the n-th on, let go before the k-th event was settled. */

static size_t
ngx_nango_desk_released(ngx_nango_desk_t *desk, size_t n, size_t k)
{
    nango_released_t  *released;

    for ( /* void */ ; n < desk->taken.nreleased; n++) {
        released = &desk->taken.released[n];

        if (released->after > k) {
            break;
        }

        ngx_nango_desk_take_in(desk, released->lane);
        desk->due_at = 0;
        desk->none_due = 0;
    }

    return n;
}


nango_rc_e
ngx_nango_courier_serve(nango_store_t *store, int *ms, nango_error_t *err)
{
    size_t                room, rows;
    uint64_t              now, txnid, left;
    nango_rc_e            rc;
    ngx_uint_t            i, expire, refresh, restart;
    ngx_nango_desk_t     *desk;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    *ms = -1;

    if (cr->n == 0 || cr->reader == NULL) {
        return NANGO_OK;
    }

    (void) pthread_mutex_lock(&cr->mutex);
    restart = cr->restart;
    cr->restart = 0;
    (void) pthread_mutex_unlock(&cr->mutex);

    if (restart) {
        ngx_nango_courier_end();
        return NANGO_OK;
    }

    now = ngx_nango_now();
    txnid = nango_store_state_txnid(store);
    refresh = (txnid != cr->txnid);
    cr->snapshot = txnid;

    for (i = 0; i < cr->n; i++) {
        desk = &cr->desks[i];

        if (refresh) {
            rc = ngx_nango_desk_refresh(desk, err);

            if (rc != NANGO_OK) {
                return rc;
            }
        }

        if (desk->absent) {
            continue;
        }

        (void) pthread_mutex_lock(&cr->mutex);

        room = desk->room;
        rows = desk->rows;
        expire = desk->expire;
        desk->expire = 0;

        if (desk->report.nsettled + desk->taken.nsettled
            >= NGX_NANGO_COURIER_SETTLED)
        {
            room = 0;
            rows = 0;
            expire = 0;
        }

        (void) pthread_mutex_unlock(&cr->mutex);

        if (rows && !(desk->none_due)
            && (desk->due_at <= now
                || desk->due_at - now > NANGO_QUEUE_RETRY_MAX))
        {
            rc = ngx_nango_desk_rows(store, desk, rows, now, err);

            /* Without memory it has come to its end. */

            if (rc != NANGO_OK || cr->reader == NULL) {
                return rc;
            }
        }

        if (expire) {
            rc = ngx_nango_desk_expire(store, desk, now, err);

            if (rc != NANGO_OK) {
                return rc;
            }
        }

        if ((room && !desk->parked)
            && (desk->more || desk->position < cr->applied))
        {
            rc = ngx_nango_desk_read(store, desk, room, 0, err);

            if (rc != NANGO_OK) {
                return rc;
            }

        } else if (expire) {
            rc = ngx_nango_desk_read(store, desk,
                                     NGX_NANGO_COURIER_EXPIRE, 1, err);
            if (rc != NANGO_OK) {
                return rc;
            }
        }

        if (rows && !desk->none_due && desk->due_at) {
            left = (desk->due_at > now) ? desk->due_at - now : 1;

            if (*ms == -1 || left < (uint64_t) *ms) {
                *ms = (int) ngx_min(left, NGX_NANGO_COURIER_LOOK);
            }
        }
    }

    /* What is not to be seen yet is looked for again. */

    cr->txnid = cr->snapshot;

    return NANGO_OK;
}


static nango_rc_e
ngx_nango_desk_refresh(ngx_nango_desk_t *desk, nango_error_t *err)
{
    nango_rc_e            rc;
    ngx_uint_t            parked, known;
    nango_ledger_t        ledger;

    rc = ngx_nango_desk_ledger(desk, &ledger, &known, err);

    if (rc != NANGO_OK) {
        return rc;
    }

    if (!known && !desk->absent) {

        /* Somebody has just removed it by hand. */

        err->code = NANGO_EINVAL;
        (void) ngx_snprintf((u_char *) err->text, sizeof(err->text),
                            "the store does not know subscriber \"%*s\" "
                            "any more%Z", desk->subscriber.name.len,
                            desk->subscriber.name.data);
        return NANGO_EINVAL;
    }

    if (known && desk->absent) {
        rc = ngx_nango_desk_begin(desk, err);

        ngx_nango_courier_wake(ngx_nango_courier.loop_fd);

        return rc;
    }

    if (desk->absent) {
        return NANGO_OK;
    }

    desk->due_at = 0;
    desk->none_due = 0;

    parked = (ledger.parked_at != 0);

    if (parked != desk->parked
        && ngx_nango_desk_park(desk, parked) != NGX_OK)
    {
        return ngx_nango_courier_no_memory(err);
    }

    return NANGO_OK;
}


/* Each change is a message: the loop looks for a difference between two. */

static ngx_int_t
ngx_nango_desk_park(ngx_nango_desk_t *desk, ngx_uint_t parked)
{
    ngx_nango_message_t  *m;

    m = calloc(1, sizeof(ngx_nango_message_t));
    if (m == NULL) {
        return NGX_ERROR;
    }

    desk->parked = parked;

    ngx_nango_desk_post(desk, m);
    ngx_nango_courier_wake(ngx_nango_courier.loop_fd);

    return NGX_OK;
}


static nango_rc_e
ngx_nango_desk_read(nango_store_t *store, ngx_nango_desk_t *desk, size_t room,
    ngx_uint_t expire, nango_error_t *err)
{
    int                     more;
    size_t                  n;
    uint64_t                position;
    nango_rc_e              rc;
    nango_delivery_t       *d;
    ngx_nango_message_t    *m;
    ngx_nango_courier_t    *cr;
    nango_delivery_read_t   how;

    cr = &ngx_nango_courier;

    m = calloc(1, sizeof(ngx_nango_message_t));

    if (m == NULL) {
        return NANGO_OK;
    }

    how.now_ms = ngx_nango_now();
    how.max_events = ngx_min(room, NGX_NANGO_COURIER_EVENTS);
    how.max_bytes = NGX_NANGO_COURIER_BYTES;
    how.expire = expire ? 1 : 0;

    position = desk->position;

    rc = nango_delivery_read(store, &desk->subscriber, &how, &position, &more,
                             &m->deliveries, &m->settled, &m->nsettled,
                             &m->settled_size, err);

    if (rc != NANGO_OK) {
        ngx_nango_courier_free(m);
        return rc;
    }

    desk->more = more ? 1 : 0;

    if (position == desk->position) {
        ngx_nango_courier_free(m);
        return NANGO_OK;
    }

    desk->position = position;
    m->position = position;

    n = 0;

    for (d = m->deliveries; d; d = d->next) {
        n++;
    }

    (void) pthread_mutex_lock(&cr->mutex);
    desk->room -= ngx_min(desk->room, n);
    (void) pthread_mutex_unlock(&cr->mutex);

    ngx_nango_desk_post(desk, m);
    ngx_nango_courier_wake(cr->loop_fd);

    return NANGO_OK;
}


static nango_rc_e
ngx_nango_desk_rows(nango_store_t *store, ngx_nango_desk_t *desk, size_t rows,
    uint64_t now, nango_error_t *err)
{
    nango_rc_e            rc;
    nango_delivery_t     *d;
    ngx_nango_message_t  *m;
    ngx_nango_courier_t  *cr;

    cr = &ngx_nango_courier;

    m = calloc(1, sizeof(ngx_nango_message_t));

    if (m == NULL) {
        return NANGO_OK;
    }

    rc = nango_delivery_due(store, &desk->subscriber, now, rows,
                            NGX_NANGO_COURIER_BYTES, ngx_nango_desk_is_out,
                            desk, &desk->due_at, &m->deliveries, &m->settled,
                            &m->nsettled, &m->settled_size, err);

    desk->none_due = (rc == NANGO_OK && desk->due_at == 0
                      && m->deliveries == NULL && m->nsettled == 0);

    for (d = m->deliveries; rc == NANGO_OK && d; d = d->next) {

        if (ngx_nango_desk_put_out(desk, d->lane) != NGX_OK) {
            ngx_nango_courier_free(m);
            ngx_nango_courier_end();
            return NANGO_OK;
        }
    }

    if (rc != NANGO_OK || (m->deliveries == NULL && m->nsettled == 0)) {
        ngx_nango_courier_free(m);
        return rc;
    }

    (void) pthread_mutex_lock(&cr->mutex);
    desk->rows = 0;
    (void) pthread_mutex_unlock(&cr->mutex);

    ngx_nango_desk_post(desk, m);
    ngx_nango_courier_wake(cr->loop_fd);

    return NANGO_OK;
}


/* Rows, which whoever is parked or down does not take from the disk. */

static nango_rc_e
ngx_nango_desk_expire(nango_store_t *store, ngx_nango_desk_t *desk,
    uint64_t now, nango_error_t *err)
{
    nango_rc_e            rc;
    ngx_nango_message_t  *m;

    m = calloc(1, sizeof(ngx_nango_message_t));

    if (m == NULL) {
        return NANGO_OK;
    }

    rc = nango_delivery_expired(store, &desk->subscriber, now,
                                NGX_NANGO_COURIER_EXPIRE,
                                ngx_nango_desk_is_out, desk, &m->settled,
                                &m->nsettled, &m->settled_size, err);

    if (rc != NANGO_OK || m->nsettled == 0) {
        ngx_nango_courier_free(m);
        return rc;
    }

    ngx_nango_desk_post(desk, m);
    ngx_nango_courier_wake(ngx_nango_courier.loop_fd);

    return NANGO_OK;
}


static int
ngx_nango_desk_is_out(void *data, const unsigned char lane[NANGO_KEY_LEN])
{
    ngx_nango_desk_t *desk = data;

    ngx_nango_out_t  *out;

    for (out = desk->out[ngx_nango_lane_chain(lane)]; out; out = out->next) {

        if (ngx_memcmp(out->lane, lane, NANGO_KEY_LEN) == 0) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_nango_desk_put_out(ngx_nango_desk_t *desk, const u_char *lane)
{
    ngx_uint_t        i;
    ngx_nango_out_t  *out;

    if (ngx_nango_desk_is_out(desk, lane)) {
        return NGX_OK;
    }

    out = malloc(sizeof(ngx_nango_out_t));
    if (out == NULL) {
        return NGX_ERROR;
    }

    i = ngx_nango_lane_chain(lane);

    ngx_memcpy(out->lane, lane, NANGO_KEY_LEN);
    out->next = desk->out[i];
    desk->out[i] = out;

    return NGX_OK;
}


static void
ngx_nango_desk_take_in(ngx_nango_desk_t *desk, const u_char *lane)
{
    ngx_nango_out_t  *out, **p;

    for (p = &desk->out[ngx_nango_lane_chain(lane)]; *p; p = &(*p)->next) {
        out = *p;

        if (ngx_memcmp(out->lane, lane, NANGO_KEY_LEN) == 0) {
            *p = out->next;
            free(out);
            return;
        }
    }
}


/* A hash, or a sequence in the last bytes. */

static ngx_uint_t
ngx_nango_lane_chain(const u_char *lane)
{
    return (lane[NANGO_KEY_LEN - 2] << 8 | lane[NANGO_KEY_LEN - 1])
           % NGX_NANGO_COURIER_LANES;
}


static ngx_int_t
ngx_nango_report_append(nango_report_t *to, nango_report_t *from)
{
    void              *p;
    size_t             k, size;
    nango_report_t     swap;
    nango_released_t  *released;

    if (to->nsettled == 0 && to->nreleased == 0) {

        from->park |= to->park;
        from->cursor = ngx_max(from->cursor, to->cursor);

        swap = *to;
        *to = *from;
        *from = swap;

    } else {

        if (to->nsettled + from->nsettled > to->settled_size) {
            size = to->nsettled + from->nsettled;

            p = realloc(to->settled, size * sizeof(nango_settled_t));
            if (p == NULL) {
                return NGX_ERROR;
            }

            to->settled = p;
            to->settled_size = size;
        }

        if (to->nreleased + from->nreleased > to->released_size) {
            size = to->nreleased + from->nreleased;

            p = realloc(to->released, size * sizeof(nango_released_t));
            if (p == NULL) {
                return NGX_ERROR;
            }

            to->released = p;
            to->released_size = size;
        }

        if (from->nsettled) {
            ngx_memcpy(to->settled + to->nsettled, from->settled,
                       from->nsettled * sizeof(nango_settled_t));
        }

        for (k = 0; k < from->nreleased; k++) {
            released = &to->released[to->nreleased++];

            *released = from->released[k];
            released->after += to->nsettled;
        }

        to->nsettled += from->nsettled;
        to->cursor = ngx_max(to->cursor, from->cursor);
        to->park |= from->park;
    }

    from->nsettled = 0;
    from->nreleased = 0;
    from->park = 0;
    from->cursor = 0;

    return NGX_OK;
}


static void
ngx_nango_report_free(nango_report_t *report)
{
    free(report->settled);
    free(report->released);

    ngx_memzero(report, sizeof(nango_report_t));
}
