/*
 * Copyright (C) nginx-nango authors
 *
 * POST of nango_connections: asks Nango how a connection is, and records what
 * it says as a repair.  A connection that is not known here is adopted if its
 * tags at Nango name the caller: how a page tells of what it has just
 * connected where no webhook arrives.
 */

#include "ngx_http_nango_connections.h"
#include "ngx_http_nango_call.h"
#include "ngx_http_nango_json.h"


/* How often what is to be recorded may be overtaken by other events. */
#define NGX_HTTP_NANGO_VERIFY_TRIES  5


typedef struct {
    ngx_http_nango_call_t    call;
    ngx_http_nango_look_t    find;
    ngx_http_nango_look_t    check;
    ngx_http_nango_look_t    done;
    ngx_array_t              owners;        /* nango_tag_t */
    nango_target_t           target;

    /* What the state says before Nango is asked. */
    u_char                   key[NANGO_KEY_LEN];
    nango_status_e           status;
    uint64_t                 updated;       /* sequence */
    uint64_t                 repeats;
    unsigned                 own:1;
    uint64_t                 unseen;        /* of what it still is */
    ngx_uint_t               tries;

    /* What Nango says. */
    nango_event_t            event;
    unsigned                 broken:1;      /* and is adopted all the same */

    ngx_str_t                text;
} ngx_http_nango_verify_t;


static ngx_int_t ngx_http_nango_verify_request(ngx_http_request_t *r,
    nango_str_t body);
static ngx_int_t ngx_http_nango_verify_find(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_verify_found(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static ngx_int_t ngx_http_nango_verify_reply(ngx_http_request_t *r,
    ngx_http_nango_call_t *call, ngx_nango_transfer_t *t);
static ngx_int_t ngx_http_nango_verify_stale(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_uint_t ngx_http_nango_verify_says(ngx_http_nango_verify_t *ver,
    nango_status_e status);
static ngx_int_t ngx_http_nango_verify_record(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static ngx_int_t ngx_http_nango_verify_event(ngx_http_request_t *r,
    ngx_http_nango_verify_t *ver, ngx_nango_transfer_t *t);
static ngx_int_t ngx_http_nango_verify_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_verify_done(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static void ngx_http_nango_verify_cleanup(void *data);


ngx_int_t
ngx_http_nango_connections_verify(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_cleanup_t       *cln;
    ngx_http_nango_ctx_t     *ctx;
    ngx_http_nango_verify_t  *ver;

    ctx = ngx_http_nango_ctx(r);
    ver = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_verify_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (ctx == NULL || ver == NULL || cln == NULL
        || ngx_array_init(&ver->owners, r->pool, NANGO_TAGS_MAX,
                          sizeof(nango_tag_t))
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->state = ver;

    cln->handler = ngx_http_nango_verify_cleanup;
    cln->data = ver;

    if (ngx_http_nango_owners(r, &ver->owners, &rc) != NGX_OK
        || ngx_http_nango_permitted(r, NGX_HTTP_NANGO_VERIFY, &rc) != NGX_OK
        || ngx_http_nango_api_needed(r, &rc) != NGX_OK)
    {
        return rc;
    }

    return ngx_http_nango_read(r, ngx_http_nango_verify_request);
}


static ngx_int_t
ngx_http_nango_verify_request(ngx_http_request_t *r, nango_str_t body)
{
    u_char                   *buf;
    const char               *error;
    ngx_http_nango_ctx_t     *ctx;
    ngx_http_nango_verify_t  *ver;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    ver = ctx->state;

    buf = ngx_pnalloc(r->pool, body.len + 1);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    if (nango_target_parse(&ver->target, body,
                           NANGO_TARGET_ID|NANGO_TARGET_CONNECTION, buf,
                           &error)
        != 0)
    {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    error);
    }

    ver->find.look = ngx_http_nango_verify_find;
    ver->find.then = ngx_http_nango_verify_found;
    ver->find.data = ver;

    return ngx_http_nango_look(r, &ver->find);
}


static ngx_int_t
ngx_http_nango_verify_find(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_verify_t *ver = data;

    int                         rc;
    ngx_int_t                   found;
    nango_error_t               err;
    nango_connection_t          c;
    ngx_nango_environment_t    *env;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    env = nlcf->endpoint.environment;

    if (ver->target.by == NANGO_TARGET_ID) {

        found = ngx_http_nango_find(r, reader, env, &ver->owners,
                                    ver->target.id, &c);
        if (found != NGX_OK) {
            return found;
        }

        ver->target.integration = c.integration;
        ver->target.connection_id = c.connection_id;

        if (ngx_http_nango_copy(r->pool, &ver->target.integration) != NGX_OK
            || ngx_http_nango_copy(r->pool, &ver->target.connection_id)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

    } else if (nango_connection_key(c.key, ngx_nango_str(&env->name),
                                    ver->target.integration,
                                    ver->target.connection_id)
               != 0)
    {
        return NGX_ERROR;

    } else {
        ngx_memcpy(ver->key, c.key, NANGO_KEY_LEN);

        rc = nango_reader_connection(reader, ver->key, &c, &err);

        if (rc == -1) {
            return ngx_http_nango_unreadable(r, &err);
        }

        if (rc == 0) {
            return NGX_OK;
        }
    }

    ngx_memcpy(ver->key, c.key, NANGO_KEY_LEN);

    ver->status = c.status;
    ver->updated = c.updated_sequence;
    ver->repeats = c.repeats;
    ver->own = (c.status != NANGO_STATUS_DELETED
                && ngx_http_nango_owned(&c, &ver->owners));

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_verify_found(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_verify_t *ver = data;

    ngx_http_nango_call_t      *call;
    ngx_http_nango_loc_conf_t  *nlcf;

    if (rc != NGX_OK) {
        return ngx_http_nango_not_chosen(r, rc, NULL);
    }

    if (!nango_connection_id_usable(ver->target.connection_id)) {
        return ngx_http_nango_not_chosen(r, NGX_DECLINED, NULL);
    }

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (ngx_http_nango_limited(r, nlcf->endpoint.environment,
                               ver->owners.elts, ver->owners.nelts, &rc)
        != NGX_OK)
    {
        return rc;
    }

    call = &ver->call;

    call->environment = nlcf->endpoint.environment;
    call->method = "GET";
    call->name = "/connections/{connectionId}";
    call->wanted = "a connection";
    call->message = "Nango did not say how the connection is";
    call->memory = nango_connection_path(ver->target.connection_id,
                                         ver->target.integration);
    call->handler = ngx_http_nango_verify_reply;
    call->data = ver;

    if (call->memory == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_nango_call(r, call);
}


static ngx_int_t
ngx_http_nango_verify_reply(ngx_http_request_t *r,
    ngx_http_nango_call_t *call, ngx_nango_transfer_t *t)
{
    ngx_int_t                 rc;
    ngx_http_nango_verify_t  *ver;

    ver = call->data;

    rc = ngx_http_nango_verify_event(r, ver, t);

    if (rc == NGX_ABORT) {
        return ngx_http_nango_not_chosen(r, NGX_DECLINED, NULL);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    ver->check.look = ngx_http_nango_verify_stale;
    ver->check.then = ngx_http_nango_verify_record;
    ver->check.data = ver;

    ver->done.look = ngx_http_nango_verify_look;
    ver->done.then = ngx_http_nango_verify_done;
    ver->done.data = ver;

    return ngx_http_nango_look(r, &ver->check);
}


/*
 * What was acknowledged of it meanwhile, a deletion above all, may be newer
 * than the reply.  NGX_ABORT: it has changed; NGX_OK; NGX_BUSY.
 */

static ngx_int_t
ngx_http_nango_verify_stale(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_verify_t *ver = data;

    int                  rc;
    nango_error_t        err;
    nango_connection_t   c;

    if (ver->check.wait.sequence > nango_reader_applied(reader)) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: what Nango said of a connection is not "
                      "recorded, since the state is behind the log");
        return NGX_BUSY;
    }

    rc = nango_reader_connection(reader, ver->key, &c, &err);

    if (rc == -1) {
        return ngx_http_nango_unreadable(r, &err);
    }

    ver->unseen = nango_reader_applied(reader) + 1;

    if (rc == 0) {
        return NGX_OK;
    }

    /* What has only been confirmed is not to be undone either. */

    if (c.updated_sequence != ver->updated
        || (c.repeats != ver->repeats
            && !ngx_http_nango_verify_says(ver, c.status)))
    {
        return NGX_ABORT;
    }

    return NGX_OK;
}


/* Whether Nango's reply leaves that status as it is. */

static ngx_uint_t
ngx_http_nango_verify_says(ngx_http_nango_verify_t *ver, nango_status_e status)
{
    nango_status_e  said;

    if (ver->event.operation == NANGO_OP_DELETION) {
        said = NANGO_STATUS_DELETED;

    } else {
        said = (ver->event.success == NANGO_SUCCESS_TRUE)
               ? NANGO_STATUS_VALID : NANGO_STATUS_INVALID;
    }

    return status == said;
}


static ngx_int_t
ngx_http_nango_verify_record(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_verify_t *ver = data;

    if (rc == NGX_ABORT) {
        ver->done.sequence = 0;
        return ngx_http_nango_look(r, &ver->done);
    }

    if (ver->tries++ == NGX_HTTP_NANGO_VERIFY_TRIES) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: what Nango said of a connection is not "
                      "recorded, since events of it came again and again");
        return ngx_http_nango_not_recorded(r);
    }

    return ngx_http_nango_record(r, ver->call.environment,
                                 NANGO_SOURCE_REPAIR, &ver->event,
                                 &ver->done, ver->unseen, &ver->check);
}


/*
 * What Nango's reply makes of the connection.  NGX_OK; NGX_ABORT: nothing that
 * this caller may know of; NGX_DECLINED: not a reply to this question.
 */

static ngx_int_t
ngx_http_nango_verify_event(ngx_http_request_t *r,
    ngx_http_nango_verify_t *ver, ngx_nango_transfer_t *t)
{
    nango_event_t       *event;
    nango_api_error_t    error;
    nango_connection_t   c;

    event = &ver->event;

    if (t->status == 200 && t->json) {

        if (nango_event_parse_connection(event, ngx_nango_str(&t->reply))
            != 0)
        {
            return NGX_ERROR;
        }

        if (!nango_str_eq(event->integration, ver->target.integration)
            || !nango_str_eq(event->connection_id, ver->target.connection_id))
        {
            return NGX_DECLINED;
        }

        /* Somebody else's is told from one that is not there by nobody. */

        c.ntags = ngx_min(event->ntags, NANGO_EVENT_TAGS_MAX);

        if (c.ntags) {
            ngx_memcpy(c.tags, event->tags, c.ntags * sizeof(nango_tag_t));
        }

        if (!ver->own && !ngx_http_nango_owned(&c, &ver->owners)) {
            return NGX_ABORT;
        }

        if (ver->status == NANGO_STATUS_VALID
            || ver->status == NANGO_STATUS_INVALID)
        {
            event->operation = NANGO_OP_OVERRIDE;

        } else if (event->success == NANGO_SUCCESS_FALSE) {
            /* A creation is a success; what broke since is told next. */
            event->success = NANGO_SUCCESS_TRUE;
            ver->broken = 1;
        }

        return NGX_OK;
    }

    nango_api_error_parse(&error, ngx_nango_str(&t->reply));

    event->type = NANGO_TYPE_AUTH;
    event->integration = ver->target.integration;
    event->connection_id = ver->target.connection_id;

    if (t->status == 404 && ngx_strcmp(error.code, "not_found") == 0) {

        if (!ver->own) {
            return NGX_ABORT;
        }

        event->operation = NANGO_OP_DELETION;
        event->success = NANGO_SUCCESS_TRUE;

        return NGX_OK;
    }

    if (ngx_strcmp(error.code, "invalid_credentials") == 0) {

        if (!ver->own) {
            return NGX_ABORT;
        }

        event->operation = NANGO_OP_REFRESH;
        event->success = NANGO_SUCCESS_FALSE;

        event->error_type = nango_str(error.code, ngx_strlen(error.code));
        event->error_text = nango_str(error.message,
                                      ngx_strlen(error.message));

        if (ngx_http_nango_copy(r->pool, &event->error_type) != NGX_OK
            || ngx_http_nango_copy(r->pool, &event->error_text) != NGX_OK)
        {
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    if (!ver->own && ngx_strcmp(error.code, "unknown_provider_config") == 0) {
        return NGX_ABORT;
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_nango_verify_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_verify_t *ver = data;

    json_t                     *json;
    ngx_int_t                   rc;
    nango_connection_t          c;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    rc = ngx_http_nango_find(r, reader, nlcf->endpoint.environment,
                             &ver->owners, ver->key, &c);
    if (rc != NGX_OK) {
        return rc;
    }

    json = ngx_http_nango_connection_json(r, &ver->owners, &c);

    rc = ngx_http_nango_json_text(r, json, &ver->text);

    json_decref(json);

    return rc;
}


static ngx_int_t
ngx_http_nango_verify_done(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_verify_t *ver = data;

    if (rc != NGX_OK) {
        return ngx_http_nango_not_chosen(r, rc, NULL);
    }

    if (ver->broken) {
        ver->broken = 0;

        ver->event.operation = NANGO_OP_OVERRIDE;
        ver->event.success = NANGO_SUCCESS_FALSE;

        /* As the creation has left it. */

        ver->updated = ver->done.sequence;
        ver->repeats = 0;
        ver->tries = 0;

        return ngx_http_nango_look(r, &ver->check);
    }

    return ngx_http_nango_answer(r, NGX_HTTP_OK, &ver->text);
}


static void
ngx_http_nango_verify_cleanup(void *data)
{
    ngx_http_nango_verify_t *ver = data;

    nango_event_free(&ver->event);
}
