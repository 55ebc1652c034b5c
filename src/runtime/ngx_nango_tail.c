/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_tail.h.  Followers are in buckets by their key.  An event that
 * concerns one of them, idle or not, is kept in a ring; one that concerns
 * nobody is not even copied.  So whoever follows since an event was looked at
 * finds in the ring what is for him, as long as the ring reaches back to where
 * he is; the others read the log themselves, on a thread.
 *
 * What is read here has just been written, by the committers and by the fold:
 * its pages are in memory.  A turn is bounded in events and bytes, and so is
 * what is woken in one.
 */

#include "ngx_nango_tail.h"
#include "ngx_nango_shared.h"


#define NGX_NANGO_TAIL_BUCKETS  1024
#define NGX_NANGO_TAIL_LOOK     10
#define NGX_NANGO_TAIL_PORTION  128

/* In a turn. */
#define NGX_NANGO_TAIL_EVENTS   256
#define NGX_NANGO_TAIL_BYTES    (2 * 1024 * 1024)

/* In the ring; a power of two. */
#define NGX_NANGO_TAIL_RING     1024
#define NGX_NANGO_TAIL_SIZE     (4 * 1024 * 1024)


static void ngx_nango_tail_init(void);
static void ngx_nango_tail_look(ngx_event_t *ev);
static ngx_uint_t ngx_nango_tail_read(void);
static int ngx_nango_tail_visit(void *data, const nango_logged_t *logged);
static ngx_uint_t ngx_nango_tail_wake(const u_char *key,
    const nango_logged_t *logged);
static ngx_uint_t ngx_nango_tail_concerns(ngx_nango_tail_t *tail,
    const nango_record_t *record, const nango_tag_t *tags, size_t ntags);
static void ngx_nango_tail_ready(ngx_nango_tail_t *tail);
static void ngx_nango_tail_all(void);
static void ngx_nango_tail_posted(ngx_event_t *ev);
static void ngx_nango_tail_keep(const nango_logged_t *logged);
static ngx_nango_tail_event_t *ngx_nango_tail_copy(
    const nango_logged_t *logged);
static void ngx_nango_tail_strings(ngx_nango_tail_event_t *event, u_char *p);
static void ngx_nango_tail_forget(ngx_uint_t n);
static void ngx_nango_tail_missing(uint64_t last);
static nango_str_t ngx_nango_tail_text(ngx_nango_tail_event_t *event,
    nango_text_t *text);
static ngx_queue_t *ngx_nango_tail_bucket(const u_char *key);


static ngx_queue_t              ngx_nango_tails[NGX_NANGO_TAIL_BUCKETS];
static ngx_queue_t              ngx_nango_tail_waking;
static ngx_uint_t               ngx_nango_tail_n;
static uint64_t                 ngx_nango_tail_seen;
static uint64_t                 ngx_nango_tail_visited;     /* in a turn */

/* From head to tail; what is not after "from" may be missing. */
static ngx_nango_tail_event_t  *ngx_nango_tail_ring[NGX_NANGO_TAIL_RING];
static ngx_uint_t               ngx_nango_tail_first;
static ngx_uint_t               ngx_nango_tail_last;
static uint64_t                 ngx_nango_tail_from;
static size_t                   ngx_nango_tail_size;

static ngx_event_t              ngx_nango_tail_timer;
static ngx_event_t              ngx_nango_tail_event;
static ngx_connection_t         ngx_nango_tail_dummy;


static ngx_inline ngx_nango_tail_event_t **
ngx_nango_tail_place(ngx_uint_t n)
{
    return &ngx_nango_tail_ring[n % NGX_NANGO_TAIL_RING];
}


static void
ngx_nango_tail_init(void)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_NANGO_TAIL_BUCKETS; i++) {
        ngx_queue_init(&ngx_nango_tails[i]);
    }

    ngx_queue_init(&ngx_nango_tail_waking);

    ngx_nango_tail_dummy.fd = (ngx_socket_t) -1;

    ngx_nango_tail_timer.handler = ngx_nango_tail_look;
    ngx_nango_tail_timer.log = ngx_cycle->log;
    ngx_nango_tail_timer.data = &ngx_nango_tail_dummy;

    ngx_nango_tail_event.handler = ngx_nango_tail_posted;
    ngx_nango_tail_event.log = ngx_cycle->log;
    ngx_nango_tail_event.data = &ngx_nango_tail_dummy;
}


void
ngx_nango_tail_join(ngx_nango_tail_t *tail, uint64_t applied)
{
    if (ngx_nango_tail_timer.handler == NULL) {
        ngx_nango_tail_init();
    }

    if (ngx_nango_tail_n++ == 0) {
        ngx_nango_tail_seen = applied;
        ngx_nango_tail_from = applied;
    }

    tail->since = ngx_nango_tail_seen;
    tail->idle = 0;
    tail->waking = 0;

    ngx_queue_insert_tail(ngx_nango_tail_bucket(tail->key), &tail->queue);

    if (!ngx_nango_tail_timer.timer_set) {
        ngx_add_timer(&ngx_nango_tail_timer, NGX_NANGO_TAIL_LOOK);
    }
}


void
ngx_nango_tail_leave(ngx_nango_tail_t *tail)
{
    ngx_queue_remove(&tail->queue);

    if (tail->waking) {
        ngx_queue_remove(&tail->ready);
        tail->waking = 0;
    }

    if (--ngx_nango_tail_n == 0) {
        ngx_nango_tail_forget(ngx_nango_tail_last - ngx_nango_tail_first);

        if (ngx_nango_tail_timer.timer_set) {
            ngx_del_timer(&ngx_nango_tail_timer);
        }
    }
}


ngx_int_t
ngx_nango_tail_next(ngx_nango_tail_t *tail, ngx_nango_tail_event_t **event)
{
    ngx_uint_t               low, high, middle;
    ngx_nango_tail_event_t  *e;

    /* The ring may have gone on with what was for others. */

    tail->position = ngx_nango_tail_position(tail);

    if (tail->position < tail->since
        || tail->position < ngx_nango_tail_from)
    {
        return NGX_AGAIN;
    }

    low = ngx_nango_tail_first;
    high = ngx_nango_tail_last;

    while (low != high) {
        middle = low + (high - low) / 2;

        if ((*ngx_nango_tail_place(middle))->logged.sequence
            <= tail->position)
        {
            low = middle + 1;

        } else {
            high = middle;
        }
    }

    for ( /* void */ ; low != ngx_nango_tail_last; low++) {
        e = *ngx_nango_tail_place(low);

        if (ngx_nango_tail_concerns(tail, &e->record, e->tags, e->ntags)) {
            tail->position = e->logged.sequence;

            e->references++;
            *event = e;

            return NGX_OK;
        }
    }

    tail->position = ngx_max(tail->position, ngx_nango_tail_seen);
    tail->idle = 1;

    return NGX_DECLINED;
}


uint64_t
ngx_nango_tail_position(ngx_nango_tail_t *tail)
{
    return tail->idle ? ngx_max(tail->position, ngx_nango_tail_seen)
                      : tail->position;
}


static void
ngx_nango_tail_look(ngx_event_t *ev)
{
    ngx_uint_t  more;

    more = 0;

    if (ngx_exiting || ngx_terminate || ngx_quit) {
        ngx_nango_tail_all();

    } else {
        ngx_nango_watch_fold();
        more = ngx_nango_tail_read();
    }

    if (!ngx_queue_empty(&ngx_nango_tail_waking)
        && !ngx_nango_tail_event.posted)
    {
        ngx_post_event(&ngx_nango_tail_event, &ngx_posted_events);
    }

    if (ngx_nango_tail_n) {
        ngx_add_timer(ev, more ? 1 : NGX_NANGO_TAIL_LOOK);
    }
}


/* Whether there is more to be read soon. */

static ngx_uint_t
ngx_nango_tail_read(void)
{
    int              rc;
    nango_error_t    err;
    nango_reader_t  *reader;
    nango_wanted_t   wanted;

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {
        return 0;
    }

    rc = 0;

    /* A state that is being made anew goes through what has been seen. */

    if (nango_reader_applied(reader) > ngx_nango_tail_seen) {
        ngx_memzero(&wanted, sizeof(nango_wanted_t));

        wanted.max_events = NGX_NANGO_TAIL_EVENTS;
        wanted.max_bytes = NGX_NANGO_TAIL_BYTES;

        ngx_nango_tail_visited = ngx_nango_tail_seen;

        rc = nango_reader_events(reader, &wanted, &ngx_nango_tail_seen,
                                 ngx_nango_tail_visit, NULL, &err);

        if (ngx_nango_tail_visited != ngx_nango_tail_seen) {
            ngx_nango_tail_missing(ngx_nango_tail_seen);
        }

        if (rc == -1) {
            ngx_nango_store_unreadable(&err);
        }
    }

    nango_reader_end(reader);

    return rc == 1;
}


static int
ngx_nango_tail_visit(void *data, const nango_logged_t *logged)
{
    size_t                     i;
    u_char                     key[NANGO_KEY_LEN];
    ngx_uint_t                 concerned;
    const nango_connection_t  *c;

    if (logged->sequence != ngx_nango_tail_visited + 1) {
        ngx_nango_tail_missing(logged->sequence - 1);
    }

    ngx_nango_tail_visited = logged->sequence;

    concerned = 0;
    c = logged->connection;

    if (nango_environment_key(key, logged->record->environment) == 0) {
        concerned += ngx_nango_tail_wake(key, logged);
    }

    for (i = 0; c && i < c->ntags; i++) {

        if (nango_owner_key(key, c->environment, c->tags[i].name,
                            c->tags[i].value)
            == 0)
        {
            concerned += ngx_nango_tail_wake(key, logged);
        }
    }

    if (concerned) {
        ngx_nango_tail_keep(logged);
    }

    return 0;
}


static ngx_uint_t
ngx_nango_tail_wake(const u_char *key, const nango_logged_t *logged)
{
    ngx_uint_t                 concerned;
    ngx_queue_t               *q, *bucket;
    ngx_nango_tail_t          *tail;
    const nango_connection_t  *c;

    concerned = 0;
    c = logged->connection;
    bucket = ngx_nango_tail_bucket(key);

    for (q = ngx_queue_head(bucket);
         q != ngx_queue_sentinel(bucket);
         q = ngx_queue_next(q))
    {
        tail = ngx_queue_data(q, ngx_nango_tail_t, queue);

        if (ngx_memcmp(tail->key, key, NANGO_KEY_LEN) != 0
            || !ngx_nango_tail_concerns(tail, logged->record,
                                        c ? c->tags : NULL, c ? c->ntags : 0))
        {
            continue;
        }

        concerned = 1;

        /* It may have read further than we have. */

        if (tail->idle && tail->position < logged->sequence) {
            tail->position = logged->sequence - 1;
            ngx_nango_tail_ready(tail);
        }
    }

    return concerned;
}


static ngx_uint_t
ngx_nango_tail_concerns(ngx_nango_tail_t *tail, const nango_record_t *record,
    const nango_tag_t *tags, size_t ntags)
{
    nango_wanted_t  *wanted;

    wanted = &tail->wanted;

    return nango_str_eq(record->environment, wanted->environment)
           && (wanted->type.data == NULL
               || nango_str_eq(nango_logged_type(record), wanted->type))
           && nango_tags_include(tags, ntags, wanted->owner, wanted->nowner);
}


static void
ngx_nango_tail_ready(ngx_nango_tail_t *tail)
{
    tail->idle = 0;

    if (!tail->waking) {
        tail->waking = 1;
        ngx_queue_insert_tail(&ngx_nango_tail_waking, &tail->ready);
    }
}


static void
ngx_nango_tail_all(void)
{
    ngx_uint_t         i;
    ngx_queue_t       *q, *bucket;
    ngx_nango_tail_t  *tail;

    for (i = 0; i < NGX_NANGO_TAIL_BUCKETS; i++) {
        bucket = &ngx_nango_tails[i];

        for (q = ngx_queue_head(bucket);
             q != ngx_queue_sentinel(bucket);
             q = ngx_queue_next(q))
        {
            tail = ngx_queue_data(q, ngx_nango_tail_t, queue);

            tail->position = ngx_nango_tail_position(tail);
            ngx_nango_tail_ready(tail);
        }
    }
}


static void
ngx_nango_tail_posted(ngx_event_t *ev)
{
    ngx_uint_t         n;
    ngx_queue_t       *q;
    ngx_nango_tail_t  *tail;

    for (n = 0; n < NGX_NANGO_TAIL_PORTION; n++) {

        if (ngx_queue_empty(&ngx_nango_tail_waking)) {
            return;
        }

        q = ngx_queue_head(&ngx_nango_tail_waking);
        tail = ngx_queue_data(q, ngx_nango_tail_t, ready);

        ngx_queue_remove(q);
        tail->waking = 0;

        tail->handler(tail);
    }

    if (!ngx_queue_empty(&ngx_nango_tail_waking)) {
        ngx_post_event(ev, &ngx_posted_next_events);
    }
}


/* Without memory the ring begins anew after it, and it is read by a thread. */

static void
ngx_nango_tail_keep(const nango_logged_t *logged)
{
    ngx_uint_t               n;
    ngx_nango_tail_event_t  *event;

    event = ngx_nango_tail_copy(logged);

    n = ngx_nango_tail_last - ngx_nango_tail_first;

    if (event == NULL) {
        ngx_nango_tail_forget(n);
        ngx_nango_tail_from = logged->sequence;
        return;
    }

    if (n == NGX_NANGO_TAIL_RING) {
        ngx_nango_tail_forget(1);
    }

    *ngx_nango_tail_place(ngx_nango_tail_last++) = event;
    ngx_nango_tail_size += event->size;

    while (ngx_nango_tail_size > NGX_NANGO_TAIL_SIZE
           && ngx_nango_tail_last - ngx_nango_tail_first > 1)
    {
        ngx_nango_tail_forget(1);
    }
}


static ngx_nango_tail_event_t *
ngx_nango_tail_copy(const nango_logged_t *logged)
{
    size_t                     i, size;
    u_char                    *p;
    nango_str_t               *s;
    nango_tag_t               *tag;
    ngx_nango_tail_event_t    *event;
    const nango_record_t      *rec;
    const nango_connection_t  *c;

    rec = logged->record;
    c = logged->connection;

    size = sizeof(ngx_nango_tail_event_t) + rec->environment.len
           + rec->type_name.len + rec->integration.len
           + rec->connection_id.len + rec->body.len + sizeof(void *);

    for (i = 0; c && i < c->ntags; i++) {
        size += sizeof(nango_tag_t) + c->tags[i].name.len
                + c->tags[i].value.len;
    }

    event = ngx_alloc(size, ngx_cycle->log);
    if (event == NULL) {
        return NULL;
    }

    ngx_memzero(event, sizeof(ngx_nango_tail_event_t));

    event->references = 1;
    event->size = size;
    event->record = *rec;
    event->logged = *logged;
    event->logged.record = &event->record;
    event->logged.connection = NULL;

    if (logged->key) {
        ngx_memcpy(event->key, logged->key, NANGO_KEY_LEN);
        event->logged.key = event->key;
    }

    event->tags = (nango_tag_t *) ngx_align_ptr(event->data, sizeof(void *));
    event->ntags = c ? c->ntags : 0;

    p = (u_char *) &event->tags[event->ntags];

    for (i = 0; i < event->ntags; i++) {
        tag = &event->tags[i];
        *tag = c->tags[i];

        s = &tag->name;
        p = ngx_cpymem(p, s->data, s->len);
        s->data = p - s->len;

        s = &tag->value;
        p = ngx_cpymem(p, s->data, s->len);
        s->data = p - s->len;
    }

    ngx_nango_tail_strings(event, p);

    return event;
}


/* The record's become those at p. */

static void
ngx_nango_tail_strings(ngx_nango_tail_event_t *event, u_char *p)
{
    ngx_uint_t    i;
    nango_str_t  *s, *strings[] = {
        &event->record.environment, &event->record.type_name,
        &event->record.integration, &event->record.connection_id,
        &event->record.body
    };

    for (i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        s = strings[i];

        if (s->len) {
            ngx_memcpy(p, s->data, s->len);
        }

        s->data = p;
        p += s->len;
    }
}


static void
ngx_nango_tail_forget(ngx_uint_t n)
{
    ngx_nango_tail_event_t  *event;

    while (n--) {
        event = *ngx_nango_tail_place(ngx_nango_tail_first++);

        ngx_nango_tail_from = event->logged.sequence;
        ngx_nango_tail_size -= event->size;

        /* What is rendered from now on is its followers' alone. */

        event->size = 0;

        ngx_nango_tail_release(event);
    }
}


/*
 * What comes up to there is pruned already, or cannot be read.  Who has not got
 * that far goes on with a thread, which finds out whether it missed anything.
 */

static void
ngx_nango_tail_missing(uint64_t last)
{
    ngx_uint_t         i;
    ngx_queue_t       *q, *bucket;
    ngx_nango_tail_t  *tail;

    ngx_nango_tail_forget(ngx_nango_tail_last - ngx_nango_tail_first);

    ngx_nango_tail_from = last;

    for (i = 0; i < NGX_NANGO_TAIL_BUCKETS; i++) {
        bucket = &ngx_nango_tails[i];

        for (q = ngx_queue_head(bucket);
             q != ngx_queue_sentinel(bucket);
             q = ngx_queue_next(q))
        {
            tail = ngx_queue_data(q, ngx_nango_tail_t, queue);

            if (tail->idle && tail->position < last) {
                tail->position = ngx_max(tail->position,
                                         ngx_nango_tail_visited);
                ngx_nango_tail_ready(tail);
            }
        }
    }
}


void
ngx_nango_tail_release(ngx_nango_tail_event_t *event)
{
    ngx_uint_t  i;

    if (--event->references) {
        return;
    }

    for (i = 0; i < 2; i++) {
        nango_text_free(&event->head[i]);
    }

    for (i = 0; i < 4; i++) {
        nango_text_free(&event->body[i]);
    }

    nango_text_free(&event->owner);

    ngx_free(event);
}


nango_str_t
ngx_nango_tail_head(ngx_nango_tail_event_t *event, ngx_uint_t show)
{
    nango_text_t  *text;

    text = &event->head[(show & NANGO_SHOW_ID) ? 1 : 0];

    if (text->len) {
        return nango_str(text->data, text->len);
    }

    nango_show_lines(text, nango_store_id(ngx_nango_store()), &event->logged);
    nango_show_head(text, &event->logged, show);

    return ngx_nango_tail_text(event, text);
}


nango_str_t
ngx_nango_tail_owner(ngx_nango_tail_event_t *event)
{
    nango_text_t  *text;

    text = &event->owner;

    if (text->len) {
        return nango_str(text->data, text->len);
    }

    nango_show_owner(text, event->tags, event->ntags);

    return ngx_nango_tail_text(event, text);
}


nango_str_t
ngx_nango_tail_body(ngx_nango_tail_event_t *event, ngx_uint_t show)
{
    nango_text_t  *text;

    show &= NANGO_SHOW_ID|NANGO_SHOW_TAGS;

    text = &event->body[show];

    if (text->len) {
        return nango_str(text->data, text->len);
    }

    nango_show_body(text, &event->record, show | NANGO_SHOW_LINES);
    nango_text_string(text, "\n\n");

    return ngx_nango_tail_text(event, text);
}


/* What has just been written. */

static nango_str_t
ngx_nango_tail_text(ngx_nango_tail_event_t *event, nango_text_t *text)
{
    if (text->failed) {
        nango_text_free(text);
        return nango_str(NULL, 0);
    }

    /* Counted while it is in the ring. */

    if (event->size) {
        event->size += text->size;
        ngx_nango_tail_size += text->size;
    }

    return nango_str(text->data, text->len);
}


static ngx_queue_t *
ngx_nango_tail_bucket(const u_char *key)
{
    ngx_uint_t  n;

    n = (key[0] | key[1] << 8) % NGX_NANGO_TAIL_BUCKETS;

    return &ngx_nango_tails[n];
}
