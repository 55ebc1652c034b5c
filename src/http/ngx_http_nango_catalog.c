/*
 * Copyright (C) nginx-nango authors
 *
 * nango_catalog [environment];
 *
 * The integrations that the caller may connect, and whether it has.  Nango's
 * list is asked for once in a worker for all who wait, and kept for five
 * minutes; an older one serves while a new one is on its way, and where Nango
 * cannot be reached.
 */

#include "ngx_http_nango_json.h"
#include "ngx_http_nango_look.h"
#include "ngx_nango_curl.h"
#include "ngx_nango_shared.h"

#include "nango_json.h"


/* ms */
#define NGX_HTTP_NANGO_CATALOG_FRESH  (5 * 60 * 1000)
#define NGX_HTTP_NANGO_CATALOG_RETRY  1000

/* Of the caller's connections, in search of what is connected. */
#define NGX_HTTP_NANGO_CATALOG_SCAN   10000


/* An environment's list in this worker. */
typedef struct {
    ngx_nango_environment_t  *environment;
    json_t                   *list;         /* NULL: none yet */
    ngx_msec_t                fetched;
    ngx_msec_t                failed;       /* 0: it has not */
    ngx_nango_transfer_t     *transfer;
    ngx_queue_t               waiting;      /* ngx_http_nango_catalog_t */
} ngx_http_nango_catalog_list_t;


typedef struct {
    ngx_http_request_t             *request;
    ngx_http_nango_catalog_list_t  *list;
    ngx_queue_t                     queue;
    ngx_http_nango_look_t           look;
    ngx_array_t                     owners;     /* nango_tag_t */
    ngx_str_t                       text;
    unsigned                        waiting:1;
} ngx_http_nango_catalog_t;


static ngx_int_t ngx_http_nango_catalog_handler(ngx_http_request_t *r);
static ngx_http_nango_catalog_list_t *ngx_http_nango_catalog_list(
    ngx_nango_environment_t *env);
static ngx_int_t ngx_http_nango_catalog_fetch(
    ngx_http_nango_catalog_list_t *list);
static void ngx_http_nango_catalog_done(ngx_nango_transfer_t *t);
static ngx_int_t ngx_http_nango_catalog_reply(
    ngx_http_nango_catalog_list_t *list, ngx_nango_transfer_t *t);
static json_t *ngx_http_nango_catalog_parse(nango_str_t reply);
static json_t *ngx_http_nango_catalog_string(nango_str_t raw);
static ngx_int_t ngx_http_nango_catalog_failed(ngx_http_request_t *r,
    ngx_nango_environment_t *env, ngx_nango_outcome_e outcome);
static ngx_int_t ngx_http_nango_catalog_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_catalog_connected(ngx_http_request_t *r,
    ngx_http_nango_catalog_t *cat, nango_reader_t *reader, json_t *statuses);
static json_t *ngx_http_nango_catalog_page(ngx_http_request_t *r,
    ngx_http_nango_catalog_t *cat, json_t *statuses);
static ngx_int_t ngx_http_nango_catalog_then(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static void ngx_http_nango_catalog_cleanup(void *data);


static ngx_http_nango_catalog_list_t  *ngx_http_nango_catalogs;
static ngx_uint_t                      ngx_http_nango_ncatalogs;


char *
ngx_http_nango_catalog(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char       *rv;
    ngx_str_t  *value;

    value = cf->args->elts;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_catalog_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (cf->args->nelts == 2) {
        nlcf->endpoint.environment_name = value[1];
    }

    ngx_str_set(&nlcf->endpoint.methods, "GET, HEAD");

    nlcf->endpoint.browser = 1;
    nlcf->endpoint.api = 1;
    nlcf->endpoint.store = 1;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_nango_catalog_init(ngx_nango_environment_t **environments,
    ngx_uint_t n)
{
    ngx_uint_t  i;

    if (n == 0) {
        return NGX_OK;
    }

    ngx_http_nango_catalogs = calloc(n, sizeof(ngx_http_nango_catalog_list_t));

    if (ngx_http_nango_catalogs == NULL) {
        return NGX_ERROR;
    }

    ngx_http_nango_ncatalogs = n;

    for (i = 0; i < n; i++) {
        ngx_http_nango_catalogs[i].environment = environments[i];
        ngx_queue_init(&ngx_http_nango_catalogs[i].waiting);
    }

    return NGX_OK;
}


void
ngx_http_nango_catalog_exit(void)
{
    ngx_uint_t                      i;
    ngx_http_nango_catalog_list_t  *list;

    for (i = 0; i < ngx_http_nango_ncatalogs; i++) {
        list = &ngx_http_nango_catalogs[i];

        if (list->transfer) {
            ngx_nango_transfer_abandon(list->transfer);
        }

        json_decref(list->list);
    }

    free(ngx_http_nango_catalogs);

    ngx_http_nango_catalogs = NULL;
    ngx_http_nango_ncatalogs = 0;
}


static ngx_int_t
ngx_http_nango_catalog_handler(ngx_http_request_t *r)
{
    ngx_int_t                       rc;
    ngx_http_cleanup_t             *cln;
    ngx_http_nango_catalog_t       *cat;
    ngx_http_nango_loc_conf_t      *nlcf;
    ngx_http_nango_catalog_list_t  *list;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return ngx_http_nango_not_allowed(r);
    }

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    cat = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_catalog_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (cat == NULL || cln == NULL
        || ngx_array_init(&cat->owners, r->pool, NANGO_TAGS_MAX,
                          sizeof(nango_tag_t))
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_nango_owners(r, &cat->owners, &rc) != NGX_OK) {
        return rc;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    list = ngx_http_nango_catalog_list(nlcf->endpoint.environment);
    if (list == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cat->request = r;
    cat->list = list;

    cat->look.look = ngx_http_nango_catalog_look;
    cat->look.then = ngx_http_nango_catalog_then;
    cat->look.data = cat;

    cln->handler = ngx_http_nango_catalog_cleanup;
    cln->data = cat;

    if ((list->list == NULL
         || ngx_current_msec - list->fetched >= NGX_HTTP_NANGO_CATALOG_FRESH)
        && list->transfer == NULL)
    {
        rc = ngx_http_nango_catalog_fetch(list);

        if (rc != NGX_OK && list->list == NULL) {
            return ngx_http_nango_catalog_failed(r, list->environment,
                                              NGX_NANGO_TRANSFER_UNAVAILABLE);
        }
    }

    if (list->list) {
        rc = ngx_http_nango_look(r, &cat->look);
        return (rc == NGX_AGAIN) ? ngx_http_nango_held(r) : rc;
    }

    cat->waiting = 1;
    ngx_queue_insert_tail(&list->waiting, &cat->queue);

    return ngx_http_nango_held(r);
}


static ngx_http_nango_catalog_list_t *
ngx_http_nango_catalog_list(ngx_nango_environment_t *env)
{
    if (env->index >= ngx_http_nango_ncatalogs) {
        return NULL;
    }

    return &ngx_http_nango_catalogs[env->index];
}


/* NGX_OK: on its way; NGX_DECLINED: not now. */

static ngx_int_t
ngx_http_nango_catalog_fetch(ngx_http_nango_catalog_list_t *list)
{
    ngx_nango_transfer_t  *t;

    if (ngx_nango_account_blocked(&list->environment->account)
        || (list->failed
            && ngx_current_msec - list->failed < NGX_HTTP_NANGO_CATALOG_RETRY))
    {
        return NGX_DECLINED;
    }

    t = ngx_nango_transfer_create();
    if (t == NULL) {
        return NGX_DECLINED;
    }

    t->environment = list->environment;
    t->method = "GET";
    t->path = "/integrations";
    t->handler = ngx_http_nango_catalog_done;
    t->data = list;

    if (ngx_nango_transfer_start(t) != NGX_OK) {
        ngx_nango_transfer_free(t);
        return NGX_DECLINED;
    }

    list->transfer = t;

    return NGX_OK;
}


static void
ngx_http_nango_catalog_done(ngx_nango_transfer_t *t)
{
    ngx_int_t                       rc, ok;
    ngx_queue_t                    *q, waiting;
    ngx_http_request_t             *r;
    ngx_nango_outcome_e             outcome;
    ngx_nango_environment_t        *env;
    ngx_http_nango_catalog_t       *cat;
    ngx_http_nango_catalog_list_t  *list;

    list = t->data;
    env = list->environment;
    outcome = t->outcome;

    list->transfer = NULL;

    ok = ngx_http_nango_catalog_reply(list, t);

    list->failed = (ok == NGX_OK) ? 0 : ngx_max(ngx_current_msec, 1);

    ngx_queue_init(&waiting);

    if (!ngx_queue_empty(&list->waiting)) {
        ngx_queue_add(&waiting, &list->waiting);
        ngx_queue_init(&list->waiting);
    }

    while (!ngx_queue_empty(&waiting)) {
        q = ngx_queue_head(&waiting);
        cat = ngx_queue_data(q, ngx_http_nango_catalog_t, queue);
        r = cat->request;

        ngx_queue_remove(q);
        cat->waiting = 0;

        ngx_http_set_log_request(r->connection->log, r);

        if (list->list) {
            rc = ngx_http_nango_look(r, &cat->look);

        } else {
            rc = ngx_http_nango_catalog_failed(r, env, outcome);
        }

        if (rc != NGX_AGAIN) {
            ngx_http_nango_finish(r, rc);
        }
    }
}


static ngx_int_t
ngx_http_nango_catalog_reply(ngx_http_nango_catalog_list_t *list,
    ngx_nango_transfer_t *t)
{
    json_t                   *json;
    nango_api_error_t         error;
    ngx_nango_environment_t  *env;

    env = list->environment;

    if (t->outcome != NGX_NANGO_TRANSFER_DONE) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: GET %V/integrations failed: %s", &env->api,
                      t->error ? t->error : "no answer in time");
        return NGX_ERROR;
    }

    if (t->status == NGX_HTTP_TOO_MANY_REQUESTS) {
        (void) ngx_nango_account_limited(&env->account, t->retry_after,
                                         ngx_cycle->log);
        return NGX_ERROR;
    }

    json = NULL;

    if (t->status == NGX_HTTP_OK && t->json) {
        json = ngx_http_nango_catalog_parse(ngx_nango_str(&t->reply));
    }

    if (json == NULL) {
        nango_api_error_parse(&error, ngx_nango_str(&t->reply));

        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: GET %V/integrations answered %ui, not a list: "
                      "\"%s\", \"%s\"%s", &env->api, t->status, error.code,
                      error.message,
                      t->status == NGX_HTTP_UNAUTHORIZED
                      ? "; check the api_key of this environment" : "");
        return NGX_ERROR;
    }

    json_decref(list->list);

    list->list = json;
    list->fetched = ngx_current_msec;

    return NGX_OK;
}


/* An array of what a catalogue shows; NULL if it is no list, or no memory. */

static json_t *
ngx_http_nango_catalog_parse(nango_str_t reply)
{
    int                   rc;
    json_t               *list, *item;
    nango_str_t           name, element;
    nango_json_walk_t     w;
    nango_json_member_t   data[] = {
        { nango_string("data"), nango_null_str }
    };
    nango_json_member_t   m[] = {
        { nango_string("unique_key"), nango_null_str },
        { nango_string("provider"), nango_null_str },
        { nango_string("display_name"), nango_null_str },
        { nango_string("logo"), nango_null_str }
    };

    if (nango_json_members(reply, data, 1) != NANGO_JSON_OBJECT
        || !nango_json_walk(&w, data[0].value) || w.object)
    {
        return NULL;
    }

    list = json_array();

    while ((rc = nango_json_next(&w, &name, &element)) == 1) {

        if (nango_json_members(element, m, 4) != NANGO_JSON_OBJECT) {
            continue;
        }

        item = ngx_http_nango_catalog_string(m[0].value);

        /* NULL goes on, for want of memory: nobody is to be left out. */

        if (item
            && !nango_integration_valid(nango_str(json_string_value(item),
                                                  json_string_length(item))))
        {
            json_decref(item);
            continue;
        }

        item = json_pack("{s:o, s:o, s:o, s:o}",
                         "integration", item,
                         "provider",
                         ngx_http_nango_catalog_string(m[1].value),
                         "display_name",
                         ngx_http_nango_catalog_string(m[2].value),
                         "logo", ngx_http_nango_catalog_string(m[3].value));

        if (json_array_append_new(list, item) != 0) {
            json_decref(list);
            return NULL;
        }
    }

    if (rc == -1) {
        json_decref(list);
        return NULL;
    }

    return list;
}


/*
 * null for anything but a string that jansson takes; NULL if there is no
 * memory, for what is said here is kept for minutes.
 */

static json_t *
ngx_http_nango_catalog_string(nango_str_t raw)
{
    nango_str_t  s;

    if (raw.len > NANGO_JSON_MAX_VALUE
        || nango_json_string(raw, NULL, 0, &s) == NANGO_JSON_STRING_BAD)
    {
        return json_null();
    }

    return nango_json_load(raw);
}


static ngx_int_t
ngx_http_nango_catalog_failed(ngx_http_request_t *r,
    ngx_nango_environment_t *env, ngx_nango_outcome_e outcome)
{
    time_t  seconds;

    seconds = ngx_nango_account_blocked(&env->account);

    if (seconds) {
        return ngx_http_nango_rate_limited(r, seconds);
    }

    switch (outcome) {

    case NGX_NANGO_TRANSFER_UNAVAILABLE:
        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "nango_unavailable",
                                    "Nango cannot be reached now");

    case NGX_NANGO_TRANSFER_TIMEOUT:
        return ngx_http_nango_error(r, NGX_HTTP_GATEWAY_TIME_OUT,
                                    "nango_timeout",
                                    "Nango did not answer in time");

    default:
        return ngx_http_nango_error(r, NGX_HTTP_BAD_GATEWAY, "nango_error",
                                    "Nango did not list its integrations");
    }
}


static ngx_int_t
ngx_http_nango_catalog_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_catalog_t *cat = data;

    json_t     *statuses, *page;
    ngx_int_t   rc;

    statuses = json_object();

    rc = ngx_http_nango_catalog_connected(r, cat, reader, statuses);

    if (rc == NGX_OK) {
        page = ngx_http_nango_catalog_page(r, cat, statuses);
        rc = ngx_http_nango_json_text(r, page, &cat->text);

        json_decref(page);
    }

    json_decref(statuses);

    return rc;
}


/* Of several connections a valid one counts. */

static ngx_int_t
ngx_http_nango_catalog_connected(ngx_http_request_t *r,
    ngx_http_nango_catalog_t *cat, nango_reader_t *reader, json_t *statuses)
{
    int                  rc;
    ngx_uint_t           n;
    const char          *status;
    nango_owned_t       *owned;
    nango_error_t        err;
    nango_connection_t   c;

    owned = nango_owned_open(reader,
                             ngx_nango_str(&cat->list->environment->name),
                             cat->owners.elts, cat->owners.nelts, 0, &err);
    if (owned == NULL) {
        return ngx_http_nango_unreadable(r, &err);
    }

    rc = 0;

    for (n = 0; n < NGX_HTTP_NANGO_CATALOG_SCAN; n++) {

        rc = nango_owned_next(owned, &c, &err);

        if (rc != 1) {
            break;
        }

        status = (c.status == NANGO_STATUS_VALID) ? "valid" : "invalid";

        if (c.status != NANGO_STATUS_VALID
            && json_object_getn(statuses, (char *) c.integration.data,
                                c.integration.len))
        {
            continue;
        }

        if (json_object_setn_new(statuses, (char *) c.integration.data,
                                 c.integration.len, json_string(status))
            != 0)
        {
            nango_owned_close(owned);
            return NGX_ERROR;
        }
    }

    nango_owned_close(owned);

    return (rc == -1) ? ngx_http_nango_unreadable(r, &err) : NGX_OK;
}


static json_t *
ngx_http_nango_catalog_page(ngx_http_request_t *r,
    ngx_http_nango_catalog_t *cat, json_t *statuses)
{
    int                         rc;
    size_t                      n;
    json_t                     *page, *item, *known, *status;
    ngx_uint_t                  i;
    ngx_array_t                 allowed;
    nango_str_t                *ids, id;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    ngx_memzero(&allowed, sizeof(ngx_array_t));

    if (nlcf->integrations
        && (ngx_array_init(&allowed, r->pool, nlcf->integrations->nelts,
                           sizeof(nango_str_t))
            != NGX_OK
            || ngx_http_nango_integrations(r, &allowed) != NGX_OK))
    {
        return NULL;
    }

    ids = allowed.elts;
    page = json_array();

    json_array_foreach(cat->list->list, n, known) {

        id.data = (u_char *) json_string_value(json_object_get(known,
                                                            "integration"));
        id.len = json_string_length(json_object_get(known, "integration"));

        if (nlcf->integrations) {

            for (i = 0; i < allowed.nelts; i++) {
                if (nango_str_eq(ids[i], id)) {
                    break;
                }
            }

            if (i == allowed.nelts) {
                continue;
            }
        }

        status = json_object_getn(statuses, (char *) id.data, id.len);

        /* json_copy() leaves out silently what it has no memory for. */

        item = json_object();

        rc = json_object_update(item, known);
        rc |= json_object_set_new(item, "connected",
                                  json_boolean(status != NULL));
        rc |= json_object_set(item, "status", status ? status : json_null());
        rc |= json_array_append_new(page, item);

        if (rc != 0) {
            json_decref(page);
            return NULL;
        }
    }

    return json_pack("{s:o}", "integrations", page);
}


static ngx_int_t
ngx_http_nango_catalog_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_catalog_t *cat = data;

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_nango_answer(r, NGX_HTTP_OK, &cat->text);
}


static void
ngx_http_nango_catalog_cleanup(void *data)
{
    ngx_http_nango_catalog_t *cat = data;

    if (cat->waiting) {
        ngx_queue_remove(&cat->queue);
        cat->waiting = 0;
    }
}
