/*
 * Copyright (C) nginx-nango authors
 *
 * nango_events [environment] [all];
 *
 * What has happened: the events of the caller's connections, or with "all"
 * those of the environment, in pages.  A page that would be empty may wait for
 * an event.  Event streams are in ngx_http_nango_events_stream.c, single
 * bodies in ngx_http_nango_events_body.c.
 */

#include "ngx_http_nango_events.h"


#define NGX_HTTP_NANGO_GONE           410

/* Of a page, but for its last event. */
#define NGX_HTTP_NANGO_EVENTS_PAGE    (1024 * 1024)

/* How long an empty page is looked through the log for. */
#define NGX_HTTP_NANGO_EVENTS_SEARCH  1000


static void ngx_http_nango_events_check(ngx_conf_t *cf,
    ngx_http_nango_loc_conf_t *prev, ngx_http_nango_loc_conf_t *conf);
static ngx_int_t ngx_http_nango_events_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_events_query(ngx_http_nango_events_t *ev,
    ngx_int_t *rc);
static ngx_uint_t ngx_http_nango_events_accept(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_events_want(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_events_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_events_then(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static ngx_int_t ngx_http_nango_events_page(ngx_http_nango_events_t *ev);
static void ngx_http_nango_events_page_done(ngx_http_nango_events_t *ev);
static ngx_uint_t ngx_http_nango_events_goes_on(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_events_page_wait(ngx_http_nango_events_t *ev);
static void ngx_http_nango_events_page_wake(ngx_nango_tail_t *tail);
static void ngx_http_nango_events_page_timeout(ngx_event_t *event);
static ngx_int_t ngx_http_nango_events_page_send(ngx_http_nango_events_t *ev);
static void ngx_http_nango_events_cleanup(void *data);


char *
ngx_http_nango_events(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char                       *rv;
    ngx_str_t                  *value;
    ngx_uint_t                  n;
    ngx_http_nango_endpoint_t  *ep;

    value = cf->args->elts;
    n = cf->args->nelts;
    ep = &nlcf->endpoint;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_events_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (ngx_thread_pool_add(cf, NULL) == NULL) {
        return NGX_CONF_ERROR;
    }

    if (n > 1 && ngx_strcmp(value[n - 1].data, "all") == 0) {
        ep->all = 1;
        n--;
    }

    if (n == 3) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\"", &value[2]);
        return NGX_CONF_ERROR;
    }

    if (n == 2) {
        ep->environment_name = value[1];
    }

    ngx_str_set(&ep->methods, "GET, HEAD");

    ep->browser = !ep->all;
    ep->store = 1;

    return NGX_CONF_OK;
}


char *
ngx_http_nango_events_merge(ngx_conf_t *cf, ngx_http_nango_loc_conf_t *prev,
    ngx_http_nango_loc_conf_t *conf)
{
    ngx_http_nango_endpoint_t  *ep;

    ep = &conf->endpoint;

    /* Not again for what "if" and "limit_except" have of it. */

    if (ep->all
        && (ep->line != prev->endpoint.line
            || ep->file.data != prev->endpoint.file.data))
    {
        ngx_http_nango_events_check(cf, prev, conf);
    }

    return NGX_CONF_OK;
}


static void
ngx_http_nango_events_check(ngx_conf_t *cf, ngx_http_nango_loc_conf_t *prev,
    ngx_http_nango_loc_conf_t *conf)
{
    ngx_http_nango_endpoint_t  *ep;

    ep = &conf->endpoint;

    if (conf->owners && conf->owners != prev->owners) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &ep->file, ep->line,
                       "\"nango_owner\" has no effect where \"%V\" shows the "
                       "events of all", &ep->name);
    }

    if (!ngx_http_nango_guarded(cf)) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &ep->file, ep->line,
                       "\"%V\" shows the events of all to anybody: there is "
                       "no \"allow\", \"auth_basic\", \"auth_request\" or "
                       "\"internal\" here", &ep->name);
    }
}


static ngx_int_t
ngx_http_nango_events_handler(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_cleanup_t       *cln;
    ngx_http_nango_events_t  *ev;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return ngx_http_nango_not_allowed(r);
    }

    ev = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_events_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (ev == NULL || cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ev->request = r;

    cln->handler = ngx_http_nango_events_cleanup;
    cln->data = ev;

    if (ngx_http_nango_events_query(ev, &rc) != NGX_OK) {
        return rc;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    ev->look.look = ngx_http_nango_events_look;
    ev->look.then = ngx_http_nango_events_then;
    ev->look.data = ev;
    ev->look.busy = 1;

    rc = ngx_http_nango_look(r, &ev->look);

    return (rc == NGX_AGAIN) ? ngx_http_nango_held(r) : rc;
}


/* NGX_OK, or NGX_DECLINED and the request has been answered with *rc. */

static ngx_int_t
ngx_http_nango_events_query(ngx_http_nango_events_t *ev, ngx_int_t *rc)
{
    u_char                     *p;
    ngx_uint_t                  i;
    const char                 *error;
    ngx_list_part_t            *part;
    ngx_table_elt_t            *h;
    ngx_http_request_t         *r;
    ngx_http_nango_loc_conf_t  *nlcf;

    r = ev->request;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    if (ngx_array_init(&ev->owners, r->pool, NANGO_TAGS_MAX,
                       sizeof(nango_tag_t))
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (!nlcf->endpoint.all
        && ngx_http_nango_owners(r, &ev->owners, rc) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(r->pool, r->args.len + 1);
    if (p == NULL) {
        return NGX_DECLINED;
    }

    error = nango_events_query_parse(&ev->query, ngx_nango_str(&r->args), p);

    ev->streaming = (r == r->main && !ev->query.has_body
                     && ngx_http_nango_events_accept(r));

    if (ev->streaming && error == NULL) {
        part = &r->headers_in.headers.part;

        for ( /* void */ ; part; part = part->next) {
            h = part->elts;

            for (i = 0; error == NULL && i < part->nelts; i++) {

                if (h[i].key.len == sizeof("last-event-id") - 1
                    && ngx_strncmp(h[i].lowcase_key, "last-event-id",
                                   sizeof("last-event-id") - 1) == 0)
                {
                    error = nango_events_query_last(&ev->query,
                                                 ngx_nango_str(&h[i].value));
                }
            }
        }
    }

    if (error) {
        *rc = ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                   error);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_nango_events_accept(ngx_http_request_t *r)
{
    u_char           *p;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    static u_char  type[] = "text/event-stream";

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len != sizeof("accept") - 1
                || ngx_strncmp(h[i].lowcase_key, "accept",
                               sizeof("accept") - 1) != 0)
            {
                continue;
            }

            p = ngx_strlcasestrn(h[i].value.data,
                                 h[i].value.data + h[i].value.len, type,
                                 sizeof(type) - 2);
            if (p) {
                return 1;
            }
        }
    }

    return 0;
}


/* What stays the same for as long as the request lives. */

static ngx_int_t
ngx_http_nango_events_want(ngx_http_nango_events_t *ev)
{
    nango_tag_t                *owner;
    nango_text_t                text;
    ngx_http_request_t         *r;
    ngx_nango_environment_t    *env;
    ngx_http_nango_loc_conf_t  *nlcf;

    r = ev->request;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    env = nlcf->endpoint.environment;

    ev->wanted.environment = ngx_nango_str(&env->name);
    ev->wanted.type = ev->query.type;

    if (nlcf->endpoint.all) {
        ev->show = NANGO_SHOW_ID|NANGO_SHOW_TAGS;
        ngx_memcpy(ev->tail.key, env->key, NANGO_KEY_LEN);

    } else {
        owner = ev->owners.elts;

        ev->wanted.owner = owner;
        ev->wanted.nowner = ev->owners.nelts;

        if (nlcf->expose & NGX_HTTP_NANGO_EXPOSE_CONNECTION_ID) {
            ev->show |= NANGO_SHOW_ID;
        }

        if (nlcf->expose & NGX_HTTP_NANGO_EXPOSE_TAGS) {
            ev->show |= NANGO_SHOW_TAGS;
        }

        if (nango_owner_key(ev->tail.key, ev->wanted.environment, owner->name,
                            owner->value)
            != 0)
        {
            return NGX_ERROR;
        }

        ngx_memzero(&text, sizeof(nango_text_t));

        nango_show_owner(&text, owner, ev->owners.nelts);

        ev->owner = nango_str(text.data, text.len);

        if (text.failed || ngx_http_nango_copy(r->pool, &ev->owner) != NGX_OK)
        {
            nango_text_free(&text);
            return NGX_ERROR;
        }

        nango_text_free(&text);
    }

    ev->tail.wanted = ev->wanted;

    return ngx_http_nango_events_prepare(ev);
}


static ngx_int_t
ngx_http_nango_events_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_events_t *ev = data;

    ev->applied = nango_reader_applied(reader);

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_events_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_events_t *ev = data;

    if (rc != NGX_OK) {
        ev->rc = NGX_BUSY;
        return ngx_http_nango_events_refuse(ev);
    }

    if (ev->query.has_log
        && ngx_memcmp(ev->query.log, nango_store_id(ngx_nango_store()),
                      NANGO_STORE_ID_LEN) != 0)
    {
        ev->rc = NGX_ABORT;
        return ngx_http_nango_events_refuse(ev);
    }

    if (ngx_http_nango_events_want(ev) != NGX_OK) {
        return NGX_ERROR;
    }

    ev->position = ev->query.after;
    ev->started = ngx_current_msec;

    if (ev->query.has_body) {
        return ngx_http_nango_events_body(ev);
    }

    if (ev->streaming) {
        return ngx_http_nango_events_stream(ev);
    }

    ev->oldest = !ev->query.has_after;
    ev->limit = ev->query.limit;
    ev->max_text = NGX_HTTP_NANGO_EVENTS_PAGE;
    ev->waiting = (ev->query.wait != 0);

    if (ev->waiting) {
        ev->timer.handler = ngx_http_nango_events_page_timeout;
        ev->timer.data = r->connection;
        ev->timer.log = r->connection->log;

        ngx_add_timer(&ev->timer, (ngx_msec_t) ev->query.wait * 1000);
    }

    nango_text_string(&ev->text, "{\"events\":[");

    return ngx_http_nango_events_page(ev);
}


ngx_int_t
ngx_http_nango_events_refuse(ngx_http_nango_events_t *ev)
{
    ngx_http_request_t  *r;

    r = ev->request;

    switch (ev->rc) {

    case NGX_DECLINED:
        return ngx_http_nango_error(r, NGX_HTTP_NANGO_GONE, "sequence_expired",
                                    "The events after this one are not kept "
                                    "any more");

    case NGX_ABORT:
        return ngx_http_nango_error(r, NGX_HTTP_CONFLICT, "log_changed",
                                    "This is another log than the one that "
                                    "was read before");

    case NGX_BUSY:
        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "store_unavailable",
                                    "Events cannot be read now");

    default: /* NGX_ERROR */
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
}


void
ngx_http_nango_events_join(ngx_http_nango_events_t *ev,
    void (*handler)(ngx_nango_tail_t *tail))
{
    ev->tail.handler = handler;
    ev->tail.data = ev;
    ev->tail.position = ev->position;

    if (!ev->joined) {
        ngx_nango_tail_join(&ev->tail, ev->applied);
        ev->joined = 1;
    }
}


void
ngx_http_nango_events_leave(ngx_http_nango_events_t *ev)
{
    if (ev->joined) {
        ngx_nango_tail_leave(&ev->tail);
        ev->joined = 0;
    }

    if (ev->timer.timer_set) {
        ngx_del_timer(&ev->timer);
    }

    if (ev->timer.posted) {
        ngx_delete_posted_event(&ev->timer);
    }
}


void
ngx_http_nango_events_finish(ngx_http_nango_events_t *ev, ngx_int_t rc)
{
    ngx_http_nango_events_leave(ev);
    ngx_http_nango_finish(ev->request, rc);
}


ngx_uint_t
ngx_http_nango_events_stuck(ngx_http_nango_events_t *ev)
{
    if (ev->stuck == ev->position + 1) {
        return 1;
    }

    ev->stuck = ev->position + 1;

    return 0;
}


/* NGX_AGAIN, or what an answer returned. */

static ngx_int_t
ngx_http_nango_events_page(ngx_http_nango_events_t *ev)
{
    if (ngx_http_nango_events_read(ev, ngx_http_nango_events_page_done)
        == NGX_OK)
    {
        return NGX_AGAIN;
    }

    ngx_http_nango_events_leave(ev);

    ev->rc = NGX_BUSY;

    return ngx_http_nango_events_refuse(ev);
}


static void
ngx_http_nango_events_page_done(ngx_http_nango_events_t *ev)
{
    ngx_int_t  rc;

    if (ev->rc != NGX_OK) {
        rc = ngx_http_nango_events_refuse(ev);

    } else if (ev->n || ngx_exiting || !ngx_http_nango_events_goes_on(ev)) {
        rc = ngx_http_nango_events_page_send(ev);

    } else if (ev->more) {
        rc = ngx_http_nango_events_page(ev);

    } else {
        rc = ngx_http_nango_events_page_wait(ev);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_nango_events_finish(ev, rc);
    }
}


/* Whether there is time left for a page that is empty so far. */

static ngx_uint_t
ngx_http_nango_events_goes_on(ngx_http_nango_events_t *ev)
{
    return ev->waiting
           || (ev->more
               && ngx_current_msec - ev->started
                  < NGX_HTTP_NANGO_EVENTS_SEARCH);
}


/* It costs its own memory, a place in a list and a timer until then. */

static ngx_int_t
ngx_http_nango_events_page_wait(ngx_http_nango_events_t *ev)
{
    ngx_nango_tail_event_t  *event;

    ngx_http_nango_events_join(ev, ngx_http_nango_events_page_wake);

    switch (ngx_nango_tail_next(&ev->tail, &event)) {

    case NGX_OK:
        ev->position = event->logged.sequence - 1;
        ngx_nango_tail_release(event);

        return ngx_http_nango_events_page(ev);

    case NGX_AGAIN:

        if (ngx_http_nango_events_stuck(ev)) {
            ev->rc = NGX_BUSY;
            return ngx_http_nango_events_refuse(ev);
        }

        return ngx_http_nango_events_page(ev);

    default: /* NGX_DECLINED */
        return NGX_AGAIN;
    }
}


static void
ngx_http_nango_events_page_wake(ngx_nango_tail_t *tail)
{
    ngx_int_t                 rc;
    ngx_http_nango_events_t  *ev;

    ev = tail->data;

    if (ev->working) {
        return;
    }

    ngx_http_set_log_request(ev->request->connection->log, ev->request);

    ev->position = tail->position;

    rc = ngx_exiting ? ngx_http_nango_events_page_send(ev)
                     : ngx_http_nango_events_page(ev);

    if (rc != NGX_AGAIN) {
        ngx_http_nango_events_finish(ev, rc);
    }
}


static void
ngx_http_nango_events_page_timeout(ngx_event_t *event)
{
    ngx_http_nango_events_t  *ev;

    ev = (ngx_http_nango_events_t *)
             ((u_char *) event - offsetof(ngx_http_nango_events_t, timer));

    ev->waiting = 0;

    if (ev->working) {
        return;
    }

    ngx_http_set_log_request(ev->request->connection->log, ev->request);

    ev->position = ngx_nango_tail_position(&ev->tail);

    ngx_http_nango_events_finish(ev, ngx_http_nango_events_page_send(ev));
}


static ngx_int_t
ngx_http_nango_events_page_send(ngx_http_nango_events_t *ev)
{
    ngx_str_t      body;
    nango_text_t  *text;

    text = &ev->text;

    nango_text_string(text, "],\"next\":");
    nango_text_number(text, ev->position);
    nango_text_string(text, ",\"log\":\"");
    nango_text_hex(text, nango_store_id(ev->store), NANGO_STORE_ID_LEN);
    nango_text_string(text, ev->more ? "\",\"more\":true}"
                                     : "\",\"more\":false}");

    if (text->failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    body.len = text->len;
    body.data = text->data;

    return ngx_http_nango_answer(ev->request, NGX_HTTP_OK, &body);
}


static void
ngx_http_nango_events_cleanup(void *data)
{
    ngx_http_nango_events_t *ev = data;

    ev->gone = 1;

    ngx_http_nango_events_leave(ev);
}
