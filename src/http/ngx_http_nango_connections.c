/*
 * Copyright (C) nginx-nango authors
 *
 * nango_connections [environment];
 *
 * The caller's connections, from a snapshot of the store.  A list sees at
 * least what was acknowledged before it was asked for: if the fold is behind,
 * the request waits for it, a second at most and without holding anything but
 * itself.
 */

#include "ngx_http_nango.h"
#include "ngx_nango_store.h"
#include "nango_query.h"
#include "nango_utf8.h"

#include <jansson.h>


/* Of a filtered list; what is left is for the next page. */
#define NGX_HTTP_NANGO_SCAN_MAX   10000

/*
 * Of strings in the connections of one page, and in those that are looked
 * through for it: with 64 tags each of them has up to 60 KB, and nobody else
 * is served meanwhile.
 */
#define NGX_HTTP_NANGO_PAGE_SIZE  (1024 * 1024)
#define NGX_HTTP_NANGO_SCAN_SIZE  (16 * 1024 * 1024)

#define NGX_HTTP_NANGO_FOLD_WAIT  1000


typedef struct {
    ngx_http_request_t    *request;
    ngx_nango_wait_t       wait;
    ngx_msec_t             deadline;
    ngx_array_t            owners;      /* nango_tag_t */
    nango_query_t          query;

    unsigned               waiting:1;
} ngx_http_nango_connections_t;


static ngx_int_t ngx_http_nango_connections_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_connections_run(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q);
static ngx_uint_t ngx_http_nango_connections_wait(
    ngx_http_nango_connections_t *q, uint64_t sequence);
static void ngx_http_nango_connections_wake(ngx_nango_wait_t *wait);
static void ngx_http_nango_connections_cleanup(void *data);
static ngx_int_t ngx_http_nango_connections_one(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q, nango_reader_t *reader, json_t **json);
static ngx_int_t ngx_http_nango_connections_list(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q, nango_reader_t *reader, json_t **json);
static size_t ngx_http_nango_connection_size(nango_connection_t *c);
static json_t *ngx_http_nango_connection_json(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q, nango_connection_t *c);
static ngx_int_t ngx_http_nango_json_tag(json_t *object,
    const nango_tag_t *tag);
static json_t *ngx_http_nango_json_string(nango_str_t s);
static json_t *ngx_http_nango_json_time(uint64_t ms);
static json_t *ngx_http_nango_json_hex(const u_char *data, size_t len);
static ngx_int_t ngx_http_nango_json_text(ngx_http_request_t *r,
    json_t *json, ngx_str_t *text);


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

    nlcf->endpoint.browser = 1;
    nlcf->endpoint.store = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_nango_connections_handler(ngx_http_request_t *r)
{
    u_char                        *p;
    ngx_int_t                      rc;
    const char                    *error;
    ngx_http_cleanup_t            *cln;
    ngx_http_nango_connections_t  *q;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return ngx_http_nango_not_allowed(r, "GET, HEAD");
    }

    q = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_connections_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (q == NULL || cln == NULL
        || ngx_array_init(&q->owners, r->pool, NANGO_TAGS_MAX,
                          sizeof(nango_tag_t))
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    q->request = r;

    cln->handler = ngx_http_nango_connections_cleanup;
    cln->data = q;

    if (ngx_http_nango_owners(r, &q->owners, &rc) != NGX_OK) {
        return rc;
    }

    p = ngx_pnalloc(r->pool, r->args.len + 1);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    error = nango_query_parse(&q->query, ngx_nango_str(&r->args), p);

    if (error) {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    error);
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    q->deadline = ngx_current_msec + NGX_HTTP_NANGO_FOLD_WAIT;

    rc = ngx_http_nango_connections_run(r, q);

    if (rc == NGX_AGAIN) {
        r->main->count++;
        ngx_http_nango_hold(r);
        return NGX_DONE;
    }

    return rc;
}


static ngx_int_t
ngx_http_nango_connections_run(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q)
{
    json_t          *json;
    uint64_t         last;
    ngx_int_t        rc;
    ngx_str_t        text;
    nango_reader_t  *reader;

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {

        if (ngx_nango_store_opening()
            && ngx_http_nango_connections_wait(q, 0))
        {
            return NGX_AGAIN;
        }

        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "store_unavailable",
                                    "Connections cannot be read now");
    }

    last = nango_reader_last(reader);

    if (last > nango_reader_applied(reader)
        && ngx_http_nango_connections_wait(q, last))
    {
        nango_reader_end(reader);
        return NGX_AGAIN;
    }

    json = NULL;

    if (q->query.one) {
        rc = ngx_http_nango_connections_one(r, q, reader, &json);

    } else {
        rc = ngx_http_nango_connections_list(r, q, reader, &json);
    }

    nango_reader_end(reader);

    if (rc == NGX_DECLINED) {
        return ngx_http_nango_error(r, NGX_HTTP_NOT_FOUND,
                                    "connection_not_found",
                                    "There is no such connection");
    }

    if (rc == NGX_BUSY) {
        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "store_unavailable",
                                    "Connections cannot be read now");
    }

    if (rc == NGX_OK) {
        rc = ngx_http_nango_json_text(r, json, &text);
    }

    json_decref(json);

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_nango_answer(r, NGX_HTTP_OK, &text);
}


/* 0: it has waited long enough, and is answered from what is there. */

static ngx_uint_t
ngx_http_nango_connections_wait(ngx_http_nango_connections_t *q,
    uint64_t sequence)
{
    ngx_msec_int_t  left;

    left = (ngx_msec_int_t) (q->deadline - ngx_current_msec);

    if (left <= 0) {
        return 0;
    }

    /* What came while it waited is not waited for. */

    if (q->wait.sequence && sequence > q->wait.sequence) {
        return 0;
    }

    q->wait.handler = ngx_http_nango_connections_wake;
    q->wait.data = q;
    q->waiting = 1;

    ngx_nango_store_wait(&q->wait, sequence, left);

    return 1;
}


static void
ngx_http_nango_connections_wake(ngx_nango_wait_t *wait)
{
    ngx_int_t                      rc;
    ngx_http_request_t            *r;
    ngx_http_nango_connections_t  *q;

    q = wait->data;
    r = q->request;

    q->waiting = 0;

    ngx_http_set_log_request(r->connection->log, r);

    rc = ngx_http_nango_connections_run(r, q);

    if (rc != NGX_AGAIN) {
        ngx_http_nango_finish(r, rc);
    }
}


static void
ngx_http_nango_connections_cleanup(void *data)
{
    ngx_http_nango_connections_t *q = data;

    if (q->waiting) {
        ngx_nango_store_wait_cancel(&q->wait);
        q->waiting = 0;
    }
}


/*
 * NGX_OK and *json, NGX_DECLINED: none of the caller's, NGX_BUSY: the store
 * cannot be read, NGX_ERROR.
 */

static ngx_int_t
ngx_http_nango_connections_one(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q, nango_reader_t *reader, json_t **json)
{
    int                         rc;
    ngx_uint_t                  i;
    nango_str_t                 value;
    nango_tag_t                *owner;
    nango_error_t               err;
    nango_connection_t          c;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    rc = nango_reader_connection(reader, q->query.key, &c, &err);

    if (rc == -1) {
        ngx_nango_store_unreadable(&err);
        return NGX_BUSY;
    }

    if (rc == 0 || c.status == NANGO_STATUS_DELETED
        || !nango_str_eq(c.environment,
                         ngx_nango_str(&nlcf->endpoint.environment->name)))
    {
        return NGX_DECLINED;
    }

    owner = q->owners.elts;

    for (i = 0; i < q->owners.nelts; i++) {
        value = nango_connection_tag(&c, owner[i].name);

        if (value.data == NULL || !nango_str_eq(value, owner[i].value)) {
            return NGX_DECLINED;
        }
    }

    if (q->query.integration.data
        && !nango_str_eq(c.integration, q->query.integration))
    {
        return NGX_DECLINED;
    }

    *json = ngx_http_nango_connection_json(r, q, &c);

    return *json ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_nango_connections_list(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q, nango_reader_t *reader, json_t **json)
{
    int                         rc, changed;
    json_t                     *list, *item, *next;
    size_t                      size, page_size, scan_size;
    u_char                      cursor[8];
    uint64_t                    last;
    ngx_uint_t                  i, n, scanned;
    nango_owned_t              *owned;
    nango_error_t               err;
    nango_connection_t          c;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    changed = 1;

    if (q->query.has_since) {
        changed = nango_reader_changed(reader,
                           ngx_nango_str(&nlcf->endpoint.environment->name),
                           q->owners.elts, q->owners.nelts, q->query.since,
                           &err);
        if (changed == -1) {
            goto failed;
        }
    }

    owned = nango_owned_open(reader,
                           ngx_nango_str(&nlcf->endpoint.environment->name),
                           q->owners.elts, q->owners.nelts, q->query.before,
                           &err);
    if (owned == NULL) {
        goto failed;
    }

    list = json_array();
    next = NULL;
    last = 0;
    n = 0;
    scanned = 0;
    page_size = 0;
    scan_size = 0;

    while ((rc = nango_owned_next(owned, &c, &err)) == 1) {

        if (n == q->query.limit || scanned == NGX_HTTP_NANGO_SCAN_MAX
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
                json_decref(list);
                return NGX_ERROR;
            }

            break;
        }

        last = c.created_sequence;
        scanned++;

        size = ngx_http_nango_connection_size(&c);
        scan_size += size;

        if (q->query.integration.data
            && !nango_str_eq(c.integration, q->query.integration))
        {
            continue;
        }

        item = ngx_http_nango_connection_json(r, q, &c);

        if (item == NULL || json_array_append_new(list, item) != 0) {
            nango_owned_close(owned);
            json_decref(list);
            return NGX_ERROR;
        }

        n++;
        page_size += size;
    }

    nango_owned_close(owned);

    if (rc == -1) {
        json_decref(list);
        goto failed;
    }

    *json = json_pack("{s:o, s:I, s:o, s:b, s:o}",
                      "connections", list,
                      "sequence", (json_int_t) nango_reader_applied(reader),
                      "log", ngx_http_nango_json_hex(
                                 nango_store_id(ngx_nango_store()),
                                 NANGO_STORE_ID_LEN),
                      "changed", changed != 0,
                      "next", next ? next : json_null());

    return *json ? NGX_OK : NGX_ERROR;

failed:

    ngx_nango_store_unreadable(&err);

    return NGX_BUSY;
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


static json_t *
ngx_http_nango_connection_json(ngx_http_request_t *r,
    ngx_http_nango_connections_t *q, nango_connection_t *c)
{
    size_t                      n;
    json_t                     *json, *error, *owner, *tags;
    ngx_uint_t                  i;
    nango_tag_t                *tag;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    owner = json_object();
    tag = q->owners.elts;

    for (i = 0; i < q->owners.nelts; i++) {
        if (ngx_http_nango_json_tag(owner, &tag[i]) != NGX_OK) {
            json_decref(owner);
            return NULL;
        }
    }

    error = json_null();

    if (c->status == NANGO_STATUS_INVALID) {
        error = json_pack("{s:o, s:o}",
                          "type", ngx_http_nango_json_string(c->error_type),
                          "description",
                          ngx_http_nango_json_string(c->error_text));
    }

    json = json_pack("{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "id", ngx_http_nango_json_hex(c->key, NANGO_KEY_LEN),
                     "integration", ngx_http_nango_json_string(c->integration),
                     "provider", ngx_http_nango_json_string(c->provider),
                     "status", c->status == NANGO_STATUS_VALID ? "valid"
                                                               : "invalid",
                     "status_since", ngx_http_nango_json_time(c->status_since),
                     "checked_at", ngx_http_nango_json_time(c->checked_at),
                     "error", error,
                     "owner", owner,
                     "created_at", ngx_http_nango_json_time(c->created_at),
                     "updated_at", ngx_http_nango_json_time(c->updated_at));

    if (json == NULL) {
        return NULL;
    }

    if (nlcf->expose & NGX_HTTP_NANGO_EXPOSE_CONNECTION_ID
        && json_object_set_new(json, "connection_id",
                               ngx_http_nango_json_string(c->connection_id))
           != 0)
    {
        json_decref(json);
        return NULL;
    }

    if (nlcf->expose & NGX_HTTP_NANGO_EXPOSE_TAGS) {
        tags = json_object();

        for (n = 0; n < c->ntags; n++) {
            if (ngx_http_nango_json_tag(tags, &c->tags[n]) != NGX_OK) {
                json_decref(tags);
                json_decref(json);
                return NULL;
            }
        }

        if (json_object_set_new(json, "tags", tags) != 0) {
            json_decref(json);
            return NULL;
        }
    }

    return json;
}


static ngx_int_t
ngx_http_nango_json_tag(json_t *object, const nango_tag_t *tag)
{
    /* What a damaged page may hold. */

    if (!nango_utf8_valid(tag->name)) {
        return NGX_OK;
    }

    return json_object_setn_new(object, (char *) tag->name.data,
                                tag->name.len,
                                ngx_http_nango_json_string(tag->value))
           == 0 ? NGX_OK : NGX_ERROR;
}


/*
 * null for an absent one, and for what a damaged page may hold; NULL if there
 * is no memory.
 */

static json_t *
ngx_http_nango_json_string(nango_str_t s)
{
    if (s.data == NULL || !nango_utf8_valid(s)) {
        return json_null();
    }

    return json_stringn_nocheck((char *) s.data, s.len);
}


static json_t *
ngx_http_nango_json_time(uint64_t ms)
{
    u_char    text[sizeof("1970-01-01T00:00:00.000Z") + 16], *p;
    ngx_tm_t  tm;

    if (ms == 0) {
        return json_null();
    }

    ngx_gmtime((time_t) (ms / 1000), &tm);

    p = ngx_snprintf(text, sizeof(text), "%4d-%02d-%02dT%02d:%02d:%02d.%03uLZ",
                     tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                     tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec, ms % 1000);

    return json_stringn((char *) text, p - text);
}


static json_t *
ngx_http_nango_json_hex(const u_char *data, size_t len)
{
    u_char  hex[2 * NANGO_STORE_ID_LEN];

    nango_hex(hex, data, len);

    return json_stringn((char *) hex, 2 * len);
}


/*
 * Twice, for its length first: jansson 2.14's json_dumps() does not notice
 * that there is no memory for a member's name.
 */

static ngx_int_t
ngx_http_nango_json_text(ngx_http_request_t *r, json_t *json, ngx_str_t *text)
{
    text->len = json_dumpb(json, NULL, 0, JSON_COMPACT);

    if (text->len == 0) {
        return NGX_ERROR;
    }

    text->data = ngx_pnalloc(r->pool, text->len);

    if (text->data == NULL
        || json_dumpb(json, (char *) text->data, text->len, JSON_COMPACT)
           != text->len)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
