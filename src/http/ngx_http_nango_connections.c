/*
 * Copyright (C) nginx-nango authors
 *
 * nango_connections [environment];
 *
 * The caller's connections: GET lists them, or waits until something of them
 * changes; POST asks Nango how one of them is, and records what it says;
 * DELETE removes one at Nango and then here.  POST and DELETE are in
 * ngx_http_nango_verify.c and ngx_http_nango_delete.c.
 */

#include "ngx_http_nango_connections.h"
#include "ngx_http_nango_json.h"
#include "ngx_nango_watch.h"


/* Of a filtered list; what is left is for the next page. */
#define NGX_HTTP_NANGO_SCAN_MAX   10000

/*
 * Of strings in the connections of one page, and in those that are looked
 * through for it: with 64 tags each of them has up to 60 KB, and nobody else
 * is served meanwhile.
 */
#define NGX_HTTP_NANGO_PAGE_SIZE  (1024 * 1024)
#define NGX_HTTP_NANGO_SCAN_SIZE  (16 * 1024 * 1024)


typedef struct {
    ngx_http_request_t      *request;
    ngx_http_nango_look_t    look;
    ngx_nango_watch_t        watch;
    ngx_event_t              timeout;
    ngx_array_t              owners;        /* nango_tag_t */
    nango_query_t            query;

    ngx_str_t                text;          /* of the answer */
    uint64_t                 applied;

    unsigned                 wait:1;        /* there is time left for it */
    unsigned                 watching:1;
} ngx_http_nango_list_t;


static ngx_int_t ngx_http_nango_connections_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_connections_list(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_list_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_list_one(ngx_http_request_t *r,
    ngx_http_nango_list_t *list, nango_reader_t *reader);
static ngx_int_t ngx_http_nango_list_page(ngx_http_request_t *r,
    ngx_http_nango_list_t *list, nango_reader_t *reader, int changed);
static size_t ngx_http_nango_connection_size(nango_connection_t *c);
static ngx_int_t ngx_http_nango_list_then(ngx_http_request_t *r, ngx_int_t rc,
    void *data);
static ngx_int_t ngx_http_nango_list_watch(ngx_http_request_t *r,
    ngx_http_nango_list_t *list);
static void ngx_http_nango_list_changed(ngx_nango_watch_t *watch);
static void ngx_http_nango_list_timeout(ngx_event_t *ev);
static void ngx_http_nango_list_again(ngx_http_nango_list_t *list);
static void ngx_http_nango_list_cleanup(void *data);


char *
ngx_http_nango_connections(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char       *rv;
    ngx_str_t  *value;

    value = cf->args->elts;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_connections_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (cf->args->nelts == 2) {
        nlcf->endpoint.environment_name = value[1];
    }

    ngx_str_set(&nlcf->endpoint.methods, "GET, HEAD, POST, DELETE");

    nlcf->endpoint.browser = 1;
    nlcf->endpoint.store = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_nango_connections_handler(ngx_http_request_t *r)
{
    switch (r->method) {

    case NGX_HTTP_GET:
    case NGX_HTTP_HEAD:
        return ngx_http_nango_connections_list(r);

    case NGX_HTTP_POST:
        return ngx_http_nango_connections_verify(r);

    case NGX_HTTP_DELETE:
        return ngx_http_nango_connections_delete(r);

    default:
        return ngx_http_nango_not_allowed(r);
    }
}


ngx_int_t
ngx_http_nango_query(ngx_http_request_t *r, ngx_array_t *owners,
    nango_query_t *query, ngx_int_t *rc)
{
    u_char      *p;
    const char  *error;

    if (ngx_array_init(owners, r->pool, NANGO_TAGS_MAX, sizeof(nango_tag_t))
        != NGX_OK)
    {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    if (ngx_http_nango_owners(r, owners, rc) != NGX_OK) {
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(r->pool, r->args.len + 1);
    if (p == NULL) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    error = nango_query_parse(query, ngx_nango_str(&r->args), p);

    if (error) {
        *rc = ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                   error);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_connections_list(ngx_http_request_t *r)
{
    ngx_int_t               rc;
    ngx_http_cleanup_t     *cln;
    ngx_http_nango_list_t  *list;

    list = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_list_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (list == NULL || cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    list->request = r;

    cln->handler = ngx_http_nango_list_cleanup;
    cln->data = list;

    if (ngx_http_nango_query(r, &list->owners, &list->query, &rc) != NGX_OK) {
        return rc;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    list->wait = (list->query.wait != 0);

    list->look.look = ngx_http_nango_list_look;
    list->look.then = ngx_http_nango_list_then;
    list->look.data = list;

    rc = ngx_http_nango_look(r, &list->look);

    return (rc == NGX_AGAIN) ? ngx_http_nango_held(r) : rc;
}


/* NGX_OK and the answer's text; NGX_DECLINED; NGX_AGAIN: nothing changed. */

static ngx_int_t
ngx_http_nango_list_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_list_t *list = data;

    int                         changed;
    nango_error_t               err;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (list->query.one) {
        return ngx_http_nango_list_one(r, list, reader);
    }

    list->applied = nango_reader_applied(reader);

    changed = 1;

    /* A sequence from the future is one of another log. */

    if (list->query.has_since && list->query.since <= list->applied) {

        changed = nango_reader_changed(reader,
                           ngx_nango_str(&nlcf->endpoint.environment->name),
                           list->owners.elts, list->owners.nelts,
                           list->query.since, &err);
        if (changed == -1) {
            return ngx_http_nango_unreadable(r, &err);
        }
    }

    if (!changed && list->wait && !ngx_exiting) {
        return NGX_AGAIN;
    }

    return ngx_http_nango_list_page(r, list, reader, changed != 0);
}


static ngx_int_t
ngx_http_nango_list_one(ngx_http_request_t *r, ngx_http_nango_list_t *list,
    nango_reader_t *reader)
{
    json_t                     *json;
    ngx_int_t                   rc;
    nango_connection_t          c;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    rc = ngx_http_nango_find(r, reader, nlcf->endpoint.environment,
                             &list->owners, list->query.key, &c);
    if (rc != NGX_OK) {
        return rc;
    }

    if (list->query.integration.data
        && !nango_str_eq(c.integration, list->query.integration))
    {
        return NGX_DECLINED;
    }

    json = ngx_http_nango_connection_json(r, &list->owners, &c);

    rc = ngx_http_nango_json_text(r, json, &list->text);

    json_decref(json);

    return rc;
}


static ngx_int_t
ngx_http_nango_list_page(ngx_http_request_t *r, ngx_http_nango_list_t *list,
    nango_reader_t *reader, int changed)
{
    int                         rc;
    json_t                     *page, *item, *next;
    size_t                      size, page_size, scan_size;
    u_char                      cursor[8];
    uint64_t                    last;
    ngx_int_t                   ok;
    ngx_uint_t                  i, n, scanned;
    nango_owned_t              *owned;
    nango_error_t               err;
    nango_connection_t          c;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    owned = nango_owned_open(reader,
                           ngx_nango_str(&nlcf->endpoint.environment->name),
                           list->owners.elts, list->owners.nelts,
                           list->query.before, &err);
    if (owned == NULL) {
        return ngx_http_nango_unreadable(r, &err);
    }

    page = json_array();
    next = NULL;
    last = 0;
    n = 0;
    scanned = 0;
    page_size = 0;
    scan_size = 0;

    while ((rc = nango_owned_next(owned, &c, &err)) == 1) {

        if (n == list->query.limit || scanned == NGX_HTTP_NANGO_SCAN_MAX
            || page_size >= NGX_HTTP_NANGO_PAGE_SIZE
            || scan_size >= NGX_HTTP_NANGO_SCAN_SIZE)
        {
            /* There is one more than fits. */

            for (i = 0; i < sizeof(cursor); i++) {
                cursor[i] = (u_char) (last >> (56 - 8 * i));
            }

            next = ngx_http_nango_json_hex(cursor, sizeof(cursor));

            if (next == NULL) {
                nango_owned_close(owned);
                json_decref(page);
                return NGX_ERROR;
            }

            break;
        }

        last = c.created_sequence;
        scanned++;

        size = ngx_http_nango_connection_size(&c);
        scan_size += size;

        if (list->query.integration.data
            && !nango_str_eq(c.integration, list->query.integration))
        {
            continue;
        }

        item = ngx_http_nango_connection_json(r, &list->owners, &c);

        if (item == NULL || json_array_append_new(page, item) != 0) {
            nango_owned_close(owned);
            json_decref(page);
            return NGX_ERROR;
        }

        page_size += size;
        n++;
    }

    nango_owned_close(owned);

    if (rc == -1) {
        json_decref(page);
        return ngx_http_nango_unreadable(r, &err);
    }

    page = json_pack("{s:o, s:I, s:o, s:b, s:o}",
                     "connections", page,
                     "sequence", (json_int_t) nango_reader_applied(reader),
                     "log", ngx_http_nango_json_hex(
                                nango_store_id(ngx_nango_store()),
                                NANGO_STORE_ID_LEN),
                     "changed", changed,
                     "next", next ? next : json_null());

    ok = ngx_http_nango_json_text(r, page, &list->text);

    json_decref(page);

    return ok;
}


static size_t
ngx_http_nango_connection_size(nango_connection_t *c)
{
    size_t  i, size;

    size = c->integration.len + c->connection_id.len + c->provider.len
           + c->error_type.len + c->error_text.len;

    for (i = 0; i < c->ntags; i++) {
        size += c->tags[i].name.len + c->tags[i].value.len;
    }

    return size;
}


static ngx_int_t
ngx_http_nango_list_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_list_t *list = data;

    switch (rc) {

    case NGX_OK:
        return ngx_http_nango_answer(r, NGX_HTTP_OK, &list->text);

    case NGX_DECLINED:
        return ngx_http_nango_error(r, NGX_HTTP_NOT_FOUND,
                                    "connection_not_found",
                                    "There is no such connection");

    case NGX_AGAIN:
        return ngx_http_nango_list_watch(r, list);

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }
}


/* It costs its own memory, a place in a list and a timer until then. */

static ngx_int_t
ngx_http_nango_list_watch(ngx_http_request_t *r, ngx_http_nango_list_t *list)
{
    nango_tag_t                *owner;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    owner = list->owners.elts;

    if (nango_owner_key(list->watch.key,
                        ngx_nango_str(&nlcf->endpoint.environment->name),
                        owner->name, owner->value)
        != 0)
    {
        return NGX_ERROR;
    }

    if (list->timeout.handler == NULL) {
        list->timeout.handler = ngx_http_nango_list_timeout;
        list->timeout.data = r->connection;
        list->timeout.log = r->connection->log;

        ngx_add_timer(&list->timeout, (ngx_msec_t) list->query.wait * 1000);
    }

    list->watch.handler = ngx_http_nango_list_changed;
    list->watch.data = list;
    list->watching = 1;

    ngx_nango_watch(&list->watch, list->applied);

    return NGX_AGAIN;
}


static void
ngx_http_nango_list_changed(ngx_nango_watch_t *watch)
{
    ngx_http_nango_list_t *list = watch->data;

    list->watching = 0;

    ngx_http_nango_list_again(list);
}


static void
ngx_http_nango_list_timeout(ngx_event_t *ev)
{
    ngx_http_nango_list_t  *list;

    list = (ngx_http_nango_list_t *)
               ((u_char *) ev - offsetof(ngx_http_nango_list_t, timeout));

    list->wait = 0;

    if (list->watching) {
        ngx_nango_watch_cancel(&list->watch);
        list->watching = 0;

        ngx_http_nango_list_again(list);
    }
}


static void
ngx_http_nango_list_again(ngx_http_nango_list_t *list)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = list->request;

    ngx_http_set_log_request(r->connection->log, r);

    /* What it was woken for is there; more is not waited for. */

    list->look.sequence = list->applied ? list->applied : 1;

    rc = ngx_http_nango_look(r, &list->look);

    if (rc != NGX_AGAIN) {
        ngx_http_nango_finish(r, rc);
    }
}


static void
ngx_http_nango_list_cleanup(void *data)
{
    ngx_http_nango_list_t *list = data;

    if (list->watching) {
        ngx_nango_watch_cancel(&list->watch);
        list->watching = 0;
    }

    if (list->timeout.timer_set) {
        ngx_del_timer(&list->timeout);
    }
}
