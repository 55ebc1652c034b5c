/*
 * Copyright (C) nginx-nango authors
 *
 * DELETE of nango_connections: at Nango first, then a deletion in the log, and
 * the answer when that is applied.  If Nango cannot be reached nothing has
 * changed; if the log cannot be written the connection is gone at Nango, and
 * asking again finds that and goes on.  Once Nango is asked, the request is
 * seen to its end also if the client leaves: what was deleted there must not
 * live on here.
 */

#include "ngx_http_nango_connections.h"
#include "ngx_http_nango_call.h"
#include "ngx_http_nango_json.h"


typedef struct {
    ngx_http_nango_call_t    call;
    ngx_http_nango_look_t    find;
    ngx_http_nango_look_t    done;
    ngx_array_t              owners;        /* nango_tag_t */
    nango_query_t            query;

    /* Copies of what was found. */
    nango_str_t              integration;
    nango_str_t              connection_id;
    nango_str_t              provider;
    ngx_str_t                choices;
} ngx_http_nango_delete_t;


static ngx_int_t ngx_http_nango_delete_find(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_delete_found(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static ngx_int_t ngx_http_nango_delete_reply(ngx_http_request_t *r,
    ngx_http_nango_call_t *call, ngx_nango_transfer_t *t);
static ngx_int_t ngx_http_nango_delete_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_delete_done(ngx_http_request_t *r,
    ngx_int_t rc, void *data);


ngx_int_t
ngx_http_nango_connections_delete(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_nango_delete_t  *del;

    del = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_delete_t));

    if (del == NULL || ngx_http_nango_ctx(r) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_nango_query(r, &del->owners, &del->query, &rc) != NGX_OK
        || ngx_http_nango_permitted(r, NGX_HTTP_NANGO_DELETE, &rc) != NGX_OK
        || ngx_http_nango_api_needed(r, &rc) != NGX_OK)
    {
        return rc;
    }

    if (!del->query.one && del->query.integration.data == NULL) {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    "The query must have id or integration");
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    del->find.look = ngx_http_nango_delete_find;
    del->find.then = ngx_http_nango_delete_found;
    del->find.data = del;

    rc = ngx_http_nango_look(r, &del->find);

    return (rc == NGX_AGAIN) ? ngx_http_nango_held(r) : rc;
}


/* NGX_OK, NGX_DECLINED: none of the caller's; NGX_ABORT: which one? */

static ngx_int_t
ngx_http_nango_delete_find(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_delete_t *del = data;

    ngx_int_t           rc;
    nango_connection_t  c;

    rc = ngx_http_nango_choose(r, reader, &del->owners,
                               del->query.one ? del->query.key : NULL,
                               del->query.integration, &c, &del->choices);
    if (rc != NGX_OK) {
        return rc;
    }

    del->integration = c.integration;
    del->connection_id = c.connection_id;
    del->provider = c.provider;

    if (ngx_http_nango_copy(r->pool, &del->integration) != NGX_OK
        || ngx_http_nango_copy(r->pool, &del->connection_id) != NGX_OK
        || ngx_http_nango_copy(r->pool, &del->provider) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_delete_found(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_delete_t *del = data;

    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_call_t      *call;
    ngx_http_nango_loc_conf_t  *nlcf;

    if (rc != NGX_OK) {
        return ngx_http_nango_not_chosen(r, rc, &del->choices);
    }

    if (!nango_connection_id_usable(del->connection_id)) {
        return ngx_http_nango_not_chosen(r, NGX_DECLINED, NULL);
    }

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    call = &del->call;

    call->environment = nlcf->endpoint.environment;
    call->method = "DELETE";
    call->name = "/connections/{connectionId}";
    call->wanted = "a deletion";
    call->message = "Nango did not delete the connection";
    call->memory = nango_connection_path(del->connection_id,
                                         del->integration);
    call->handler = ngx_http_nango_delete_reply;
    call->data = del;

    if (call->memory == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_nango_call(r, call);

    if (rc == NGX_AGAIN) {
        ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
        ctx->insist = 1;

        ngx_http_nango_hold(r);
    }

    return rc;
}


static ngx_int_t
ngx_http_nango_delete_reply(ngx_http_request_t *r,
    ngx_http_nango_call_t *call, ngx_nango_transfer_t *t)
{
    nango_event_t             event;
    nango_api_error_t         error;
    ngx_http_nango_delete_t  *del;

    del = call->data;

    if (t->status == 200) {

        /* Not just any server that answers everything. */

        if (!t->json || !nango_api_success(ngx_nango_str(&t->reply))) {
            return NGX_DECLINED;
        }

    } else {
        nango_api_error_parse(&error, ngx_nango_str(&t->reply));

        /* It is gone already, which is what was wanted. */

        if (ngx_strcmp(error.code, "unknown_connection") != 0) {
            return NGX_DECLINED;
        }
    }

    ngx_memzero(&event, sizeof(nango_event_t));

    event.type = NANGO_TYPE_AUTH;
    event.operation = NANGO_OP_DELETION;
    event.success = NANGO_SUCCESS_TRUE;
    event.integration = del->integration;
    event.connection_id = del->connection_id;
    event.provider = del->provider;
    event.tags = del->owners.elts;
    event.ntags = del->owners.nelts;

    del->done.look = ngx_http_nango_delete_look;
    del->done.then = ngx_http_nango_delete_done;
    del->done.data = del;

    return ngx_http_nango_record(r, call->environment, NANGO_SOURCE_EDGE,
                                 &event, &del->done, 0, NULL);
}


static ngx_int_t
ngx_http_nango_delete_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_delete_done(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    static ngx_str_t  success = ngx_string("{\"success\":true}");

    return ngx_http_nango_answer(r, NGX_HTTP_OK, &success);
}
