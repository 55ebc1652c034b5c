/*
 * Copyright (C) nginx-nango authors
 *
 * An event of ours on behalf of a request: appended to the log like a webhook,
 * and looked at once it is in the state.
 */

#include "ngx_http_nango_connections.h"
#include "ngx_nango_event.h"


typedef struct {
    ngx_http_request_t      *request;
    ngx_http_nango_look_t   *look;
    ngx_http_nango_look_t   *overtaken;
    ngx_nango_job_t         *job;
} ngx_http_nango_record_t;


static void ngx_http_nango_record_done(ngx_nango_job_t *job);
static ngx_int_t ngx_http_nango_record_failed(ngx_http_request_t *r);
static void ngx_http_nango_record_cleanup(void *data);


ngx_int_t
ngx_http_nango_record(ngx_http_request_t *r, ngx_nango_environment_t *env,
    nango_source_e source, const nango_event_t *event,
    ngx_http_nango_look_t *look, uint64_t unseen,
    ngx_http_nango_look_t *overtaken)
{
    ngx_nango_job_t          *job;
    ngx_http_cleanup_t       *cln;
    ngx_http_nango_ctx_t     *ctx;
    ngx_http_nango_record_t  *rec;

    ctx = ngx_http_nango_ctx(r);
    rec = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_record_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (ctx == NULL || rec == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    job = ngx_nango_event_job(env, source, event);
    if (job == NULL) {
        return ngx_http_nango_record_failed(r);
    }

    ctx->event = 1;
    ctx->type = event->type;
    ctx->operation = event->operation;

    job->write.unseen = unseen;
    job->handler = ngx_http_nango_record_done;
    job->data = rec;

    if (ngx_nango_job_submit(job) != NGX_OK) {
        ngx_nango_job_free(job);
        return ngx_http_nango_record_failed(r);
    }

    rec->request = r;
    rec->look = look;
    rec->overtaken = overtaken;
    rec->job = job;

    cln->handler = ngx_http_nango_record_cleanup;
    cln->data = rec;

    return NGX_AGAIN;
}


static void
ngx_http_nango_record_done(ngx_nango_job_t *job)
{
    ngx_int_t                 rc;
    ngx_http_request_t       *r;
    ngx_http_nango_ctx_t     *ctx;
    ngx_http_nango_record_t  *rec;

    rec = job->data;
    r = rec->request;

    rec->job = NULL;

    ngx_http_set_log_request(r->connection->log, r);

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    ctx->commit = 1;
    ctx->commit_time = job->committed - job->submitted;

    switch (job->write.result) {

    case NANGO_WRITE_STORED:
        ctx->sequence = job->write.sequence;
        rec->look->sequence = job->write.sequence;

        rc = ngx_http_nango_look(r, rec->look);
        break;

    case NANGO_WRITE_OVERTAKEN:
        rc = ngx_http_nango_look(r, rec->overtaken);
        break;

    default:
        rc = ngx_http_nango_record_failed(r);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_nango_finish(r, rc);
    }
}


static ngx_int_t
ngx_http_nango_record_failed(ngx_http_request_t *r)
{
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "nango: what Nango said cannot be stored");

    return ngx_http_nango_not_recorded(r);
}


ngx_int_t
ngx_http_nango_not_recorded(ngx_http_request_t *r)
{
    return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                "store_unavailable",
                                "This cannot be recorded now");
}


/* The job goes on; only nobody waits for it. */

static void
ngx_http_nango_record_cleanup(void *data)
{
    ngx_http_nango_record_t *rec = data;

    if (rec->job) {
        rec->job->handler = NULL;
        rec->job->data = NULL;
        rec->job = NULL;
    }
}
