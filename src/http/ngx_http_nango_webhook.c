/*
 * Copyright (C) nginx-nango authors
 *
 * nango_webhook [environment] [max_body=75m];
 *
 * Takes Nango's signed webhooks.  What is answered 200 is on disk; what may
 * pass is answered 503, which Nango repeats.  Nothing else: Nango follows a
 * redirect as a GET without a body and counts that as delivered, and never
 * repeats after a 4xx.
 *
 * The signature is over the raw bytes and is verified before anything is
 * parsed.  Bodies of up to 128 KB are read into memory and verified here;
 * longer ones are in nginx's temporary file, on the store's file system, and a
 * task of nginx's thread pool verifies, syncs and renames it.
 */

#include "ngx_http_nango_thread.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_store.h"
#include "ngx_nango_trouble.h"

#include "nango_guard.h"
#include "nango_signature.h"

#include <sys/mman.h>


#define NGX_HTTP_NANGO_MAX_BODY      (75 * 1024 * 1024)
#define NGX_HTTP_NANGO_MAX_MAX_BODY  (1024LL * 1024 * 1024 * 1024)

/* A longer body is a file. */
#define NGX_HTTP_NANGO_MEMORY        (128 * 1024)

#define NGX_HTTP_NANGO_OPEN_WAIT     5000


typedef struct {
    ngx_http_request_t        *request;
    ngx_nango_environment_t   *environment;
    u_char                     mac[NANGO_HMAC_LEN];
    uint64_t                   received_at;
    off_t                      received;    /* of the body, dropped or not */
    off_t                      held;        /* of it, in its file */
    ngx_nango_job_t           *job;         /* submitted */
    ngx_nango_wait_t           wait;        /* for the store to be opened */
    unsigned                   waiting:1;
    unsigned                   own:1;       /* the body was received here */
    unsigned                   lost:1;      /* its file cannot be written */
    unsigned                   gone:1;      /* nobody waits for an answer */
} ngx_http_nango_webhook_t;


/* What the thread needs; it never touches the request. */
typedef struct {
    ngx_http_request_t        *request;
    nango_store_t             *store;
    ngx_nango_environment_t   *environment;
    ngx_fd_t                   fd;
    ngx_str_t                  path;        /* empty: not ours, is copied */
    ngx_chain_t               *bufs;        /* instead of the file */
    size_t                     size;
    u_char                     mac[NANGO_HMAC_LEN];

    /* The result. */
    ngx_int_t                  rc;
    nango_event_t              event;
    u_char                     body_name[NANGO_BODY_NAME_LEN];
    int                        body_held;   /* -1: not by us */
    nango_error_t              error;
} ngx_http_nango_webhook_task_t;


static ngx_int_t ngx_http_nango_webhook_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_uint_t ngx_http_nango_webhook_holds(ngx_http_request_t *r,
    ngx_http_nango_webhook_t *w);
static ngx_int_t ngx_http_nango_webhook_handler(ngx_http_request_t *r);
static void ngx_http_nango_webhook_open(ngx_nango_wait_t *wait);
static ngx_int_t ngx_http_nango_webhook_read(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_webhook_unavailable(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_webhook_forged(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_webhook_too_large(ngx_http_request_t *r,
    off_t size);
static void ngx_http_nango_webhook_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_webhook_memory(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_webhook_file(ngx_http_request_t *r,
    size_t size);
static void ngx_http_nango_webhook_thread(void *data, ngx_log_t *log);
static ngx_int_t ngx_http_nango_webhook_keep(ngx_http_nango_webhook_task_t *t,
    nango_str_t body);
static ngx_int_t ngx_http_nango_webhook_look(ngx_http_nango_webhook_task_t *t,
    nango_str_t body);
static void ngx_http_nango_webhook_thread_done(ngx_event_t *ev);
static void ngx_http_nango_webhook_task_cleanup(void *data);
static size_t ngx_http_nango_webhook_headers(ngx_http_request_t *r,
    u_char *dst);
static ngx_int_t ngx_http_nango_webhook_submit(ngx_http_request_t *r,
    nango_event_t *event, nango_str_t *body, u_char *body_name,
    int *body_held);
static void ngx_http_nango_webhook_done(ngx_nango_job_t *job);
static void ngx_http_nango_webhook_abandoned(ngx_nango_job_t *job);
static void ngx_http_nango_webhook_cleanup(void *data);


static ngx_http_request_body_filter_pt  ngx_http_next_request_body_filter;

static ngx_nango_trouble_t  ngx_http_nango_webhook_trouble;

/* Bytes of bodies in this worker that are files and not yet done with. */
static off_t  ngx_http_nango_webhook_held;


/* Compared in lower case: hop by hop, or somebody's secret, or ours. */

static ngx_str_t  ngx_http_nango_webhook_dropped[] = {
    ngx_string("host"),
    ngx_string("cookie"),
    ngx_string("authorization"),
    ngx_string("forwarded"),
    ngx_string("connection"),
    ngx_string("keep-alive"),
    ngx_string("proxy-authenticate"),
    ngx_string("proxy-authorization"),
    ngx_string("proxy-connection"),
    ngx_string("te"),
    ngx_string("trailer"),
    ngx_string("transfer-encoding"),
    ngx_string("upgrade"),
    ngx_string("expect"),
    ngx_null_string
};


char *
ngx_http_nango_webhook(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char                        *rv;
    off_t                        size;
    ngx_str_t                   *value, s;
    ngx_uint_t                   i;
    ngx_http_nango_endpoint_t   *ep;
    ngx_http_nango_main_conf_t  *nmcf;

    value = cf->args->elts;
    ep = &nlcf->endpoint;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_webhook_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "max_body=", 9) == 0) {

            s.data = value[i].data + 9;
            s.len = value[i].len - 9;

            size = ngx_parse_offset(&s);

            if (size == NGX_ERROR || size < 1024
                || size > NGX_HTTP_NANGO_MAX_MAX_BODY)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid size \"%V\"; write it as "
                                   "\"max_body=75m\", 1k to 1024g", &s);
                return NGX_CONF_ERROR;
            }

            if (ep->max_body) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"%V\" is given twice", &value[i]);
                return NGX_CONF_ERROR;
            }

            ep->max_body = size;
            continue;
        }

        if (ep->environment_name.len) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"; there are an "
                               "environment's name and \"max_body=\"",
                               &value[i]);
            return NGX_CONF_ERROR;
        }

        ep->environment_name = value[i];
    }

    if (ep->max_body == 0) {
        ep->max_body = NGX_HTTP_NANGO_MAX_BODY;
    }

    ngx_str_set(&ep->methods, "POST");

    ep->signing = 1;
    ep->store = 1;
    ep->strangers = 1;

    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);

    /* Declared here so that the pool "default" exists in the workers. */

    if (nmcf->webhooks++ == 0 && ngx_thread_pool_add(cf, NULL) == NULL) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/*
 * The location's body settings are ours: nginx's own 413 would go through
 * error_page, large bodies must land on the store's file system, and small
 * ones in memory.
 */

char *
ngx_http_nango_webhook_merge(ngx_conf_t *cf, ngx_http_nango_loc_conf_t *conf)
{
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_nango_main_conf_t  *nmcf;

    if (conf->endpoint.handler != ngx_http_nango_webhook_handler) {
        return NGX_CONF_OK;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);

    clcf->client_max_body_size = 0;
    clcf->client_body_buffer_size = NGX_HTTP_NANGO_MEMORY;
    clcf->client_body_in_file_only = 0;
    clcf->client_body_in_single_buffer = 0;
    clcf->client_body_temp_path = nmcf->temp_path;

    /* What nginx itself answers while it reads a body stays what it is. */

    clcf->error_pages = NULL;

    return NGX_CONF_OK;
}


void
ngx_http_nango_webhook_init(void)
{
    ngx_http_next_request_body_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_nango_webhook_body_filter;
}


/*
 * A body whose length was not said (chunked, HTTP/2) is counted as it comes.
 * What is beyond max_body is read and dropped, so that it takes neither memory
 * nor disk and yet the answer is ours.  So is what follows when the file for
 * it cannot be made or written, which nginx would answer 500.
 */

static ngx_int_t
ngx_http_nango_webhook_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_int_t                   rc;
    ngx_chain_t                *cl;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_webhook_t   *w;
    ngx_http_request_body_t    *rb;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    if (nlcf->endpoint.handler != ngx_http_nango_webhook_handler
        || ctx == NULL || ctx->state == NULL)
    {
        return ngx_http_next_request_body_filter(r, in);
    }

    w = ctx->state;

    for (cl = in; cl; cl = cl->next) {

        w->received += ngx_buf_size(cl->buf);

        if ((size_t) w->received > nlcf->endpoint.max_body) {
            cl->buf->pos = cl->buf->last;
        }
    }

    if (!w->lost && !ngx_http_nango_webhook_holds(r, w)) {
        w->lost = 1;
    }

    if (!w->lost) {
        rc = ngx_http_next_request_body_filter(r, in);

        if (rc < NGX_HTTP_INTERNAL_SERVER_ERROR && rc != NGX_ERROR) {
            return rc;
        }

        w->lost = 1;
    }

    /* Nobody else sees the buffers any more, so they are done with here. */

    rb = r->request_body;

    for (cl = rb->bufs; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
    }

    rb->bufs = NULL;

    for (cl = in; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;

        if (cl->buf->last_buf) {
            rb->last_saved = 1;
        }
    }

    return NGX_OK;
}


/*
 * Whether there is room for what has come.  Whose it is shows only when all of
 * it has: until then anybody could fill the disk that the log is on.
 */

static ngx_uint_t
ngx_http_nango_webhook_holds(ngx_http_request_t *r,
    ngx_http_nango_webhook_t *w)
{
    off_t                        size, room;
    ngx_http_nango_loc_conf_t   *nlcf;
    ngx_http_nango_main_conf_t  *nmcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    nmcf = ngx_http_get_module_main_conf(r, ngx_http_nango_module);

    size = ngx_min(w->received, (off_t) nlcf->endpoint.max_body);

    if (size <= NGX_HTTP_NANGO_MEMORY && !r->request_body_in_file_only) {
        return 1;
    }

    room = ngx_max((off_t) nmcf->store.size / 8,
                   2 * (off_t) nlcf->endpoint.max_body);

    if (size - w->held > room - ngx_http_nango_webhook_held) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: the webhook cannot be stored: too many large "
                      "ones are under way");
        return 0;
    }

    ngx_http_nango_webhook_held += size - w->held;
    w->held = size;

    return 1;
}


static ngx_int_t
ngx_http_nango_webhook_handler(ngx_http_request_t *r)
{
    ngx_uint_t                  two;
    ngx_table_elt_t            *h;
    ngx_http_cleanup_t         *cln;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_webhook_t   *w;
    ngx_http_nango_loc_conf_t  *nlcf;

    static const char  name[] = "x-nango-hmac-sha256";

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (r->method != NGX_HTTP_POST) {
        return ngx_http_nango_not_allowed(r);
    }

    ctx = ngx_http_nango_ctx(r);
    w = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_webhook_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (ctx == NULL || w == NULL || cln == NULL) {
        return ngx_http_nango_webhook_unavailable(r);
    }

    h = ngx_http_nango_find_header(r, name, sizeof(name) - 1, NULL);

    /* Two of them: nobody can say which one was meant, so neither. */

    two = (h && ngx_http_nango_find_header(r, name, sizeof(name) - 1, h));

    if (h == NULL || two
        || nango_signature_parse(ngx_nango_str(&h->value), w->mac) != 0)
    {
        ngx_nango_count(NGX_NANGO_WEBHOOKS_UNSIGNED);

        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "a webhook has %s X-Nango-Hmac-Sha256 header%s",
                      h == NULL ? "no" : two ? "several" : "a malformed",
                      two ? "s" : "");

        return ngx_http_nango_error(r, NGX_HTTP_UNAUTHORIZED,
                                    "invalid_signature",
                                    "The webhook's signature is missing or "
                                    "malformed");
    }

    if (r->headers_in.content_length_n > 0
        && (size_t) r->headers_in.content_length_n > nlcf->endpoint.max_body)
    {
        return ngx_http_nango_webhook_too_large(r,
                                             r->headers_in.content_length_n);
    }

    if (!ngx_nango_store_ready()) {
        return ngx_http_nango_webhook_unavailable(r);
    }

    w->request = r;
    w->environment = nlcf->endpoint.environment;
    w->received_at = ngx_nango_now();

    cln->handler = ngx_http_nango_webhook_cleanup;
    cln->data = w;

    ctx->state = w;

    /*
     * A large body, or one of unknown length, is a file in the store, which
     * may have to be made yet.
     */

    if (ngx_nango_store() == NULL
        && (r->headers_in.content_length_n == -1
            || r->headers_in.content_length_n > NGX_HTTP_NANGO_MEMORY))
    {
        w->waiting = 1;
        w->wait.handler = ngx_http_nango_webhook_open;
        w->wait.data = w;

        ngx_nango_store_wait(&w->wait, 0, NGX_HTTP_NANGO_OPEN_WAIT);

        r->main->count++;
        ngx_http_nango_hold(r);

        return NGX_DONE;
    }

    return ngx_http_nango_webhook_read(r);
}


static void
ngx_http_nango_webhook_open(ngx_nango_wait_t *wait)
{
    ngx_int_t                  rc;
    ngx_http_request_t        *r;
    ngx_http_nango_webhook_t  *w;

    w = wait->data;
    r = w->request;

    w->waiting = 0;

    ngx_http_set_log_request(r->connection->log, r);

    if (ngx_nango_store()) {
        rc = ngx_http_nango_webhook_read(r);

    } else {
        rc = ngx_http_nango_webhook_unavailable(r);
    }

    ngx_http_nango_finish(r, rc);
}


/* NGX_DONE: the body handler will answer.  Else what to finalize with. */

static ngx_int_t
ngx_http_nango_webhook_read(ngx_http_request_t *r)
{
    ngx_int_t                  rc;
    ngx_http_nango_ctx_t      *ctx;
    ngx_http_nango_webhook_t  *w;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    w = ctx->state;

    /* A mirrored request has its body from another location. */

    w->own = (r == r->main && r->request_body == NULL);

    /*
     * A file has a name, to be renamed by; without these it is unlinked as
     * soon as it is open.  It goes with the request if it was not renamed.
     */

    r->request_body_in_persistent_file = 1;
    r->request_body_in_clean_file = 1;

    /* nginx's buffer would take a quarter more than it was told. */

    if (r->headers_in.content_length_n > NGX_HTTP_NANGO_MEMORY) {
        r->request_body_in_file_only = 1;
    }

    r->request_body_file_log_level = NGX_LOG_INFO;

    rc = ngx_http_read_client_request_body(r,
                                          ngx_http_nango_webhook_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {

        /* Nobody knows where in what was sent the next request begins. */

        r->keepalive = 0;

        if (rc == NGX_HTTP_BAD_REQUEST) {
            ngx_nango_count(NGX_NANGO_WEBHOOKS_UNREADABLE);

            return ngx_http_nango_error(r, rc, "invalid_body",
                                        "The request's body could not be "
                                        "read");
        }

        return ngx_http_nango_webhook_unavailable(r);
    }

    return NGX_DONE;
}


static ngx_int_t
ngx_http_nango_webhook_unavailable(ngx_http_request_t *r)
{
    ngx_nango_count(NGX_NANGO_WEBHOOKS_UNAVAILABLE);

    return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                "store_unavailable",
                                "The webhook cannot be stored now, send it "
                                "again");
}


static ngx_int_t
ngx_http_nango_webhook_forged(ngx_http_request_t *r)
{
    ngx_nango_count(NGX_NANGO_WEBHOOKS_FORGED);

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "a webhook's signature does not verify; if it is Nango's, "
                  "its signing key is not in webhook_signing_key");

    return ngx_http_nango_error(r, NGX_HTTP_UNAUTHORIZED, "invalid_signature",
                                "The webhook's signature does not verify");
}


static ngx_int_t
ngx_http_nango_webhook_too_large(ngx_http_request_t *r, off_t size)
{
    ngx_nango_count(NGX_NANGO_WEBHOOKS_TOO_LARGE);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "a webhook of %O bytes is larger than max_body; Nango will "
                  "not send it again", size);

    return ngx_http_nango_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                "body_too_large", "The webhook is too large");
}


static void
ngx_http_nango_webhook_body_handler(ngx_http_request_t *r)
{
    off_t                       size;
    ngx_int_t                   rc;
    ngx_chain_t                *cl;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_webhook_t   *w;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    w = ctx->state;

    size = 0;

    if (r->request_body) {
        for (cl = r->request_body->bufs; cl; cl = cl->next) {
            size += ngx_buf_size(cl->buf);
        }
    }

    size = ngx_max(size, w->received);

    if ((size_t) size > nlcf->endpoint.max_body) {
        rc = ngx_http_nango_webhook_too_large(r, size);

    } else if (r->request_body == NULL || w->lost) {
        /* a subrequest without one, or it was discarded before a redirect */
        rc = ngx_http_nango_webhook_unavailable(r);

    } else if (r->request_body->temp_file || size > NGX_HTTP_NANGO_MEMORY) {
        rc = ngx_http_nango_webhook_file(r, size);

    } else {
        rc = ngx_http_nango_webhook_memory(r);
    }

    if (rc == NGX_AGAIN) {
        ngx_http_nango_hold(r);
        return;
    }

    ngx_http_finalize_request(r, rc);
}


static ngx_int_t
ngx_http_nango_webhook_memory(ngx_http_request_t *r)
{
    int                        good;
    size_t                     len;
    u_char                    *p;
    ngx_int_t                  rc;
    ngx_chain_t               *cl;
    nango_str_t                body;
    nango_event_t              event;
    nango_verify_t            *v;
    ngx_http_nango_ctx_t      *ctx;
    ngx_http_nango_webhook_t  *w;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    w = ctx->state;

    cl = r->request_body->bufs;

    if (cl == NULL) {
        body = nango_str((u_char *) "", 0);

    } else if (cl->next == NULL) {
        body = nango_str(cl->buf->pos, cl->buf->last - cl->buf->pos);

    } else {
        body = nango_str(NULL, 0);
    }

    if (body.data) {
        good = nango_verify(w->environment->signing_keys, body, w->mac);

    } else {
        v = nango_verify_start(w->environment->signing_keys);
        if (v == NULL) {
            return ngx_http_nango_webhook_unavailable(r);
        }

        for (cl = r->request_body->bufs; cl; cl = cl->next) {
            len = cl->buf->last - cl->buf->pos;

            if (nango_verify_update(v, cl->buf->pos, len) != 0) {
                nango_verify_abort(v);
                return ngx_http_nango_webhook_unavailable(r);
            }

            body.len += len;
        }

        good = nango_verify_finish(v, w->mac);
    }

    if (good == -1) {
        return ngx_http_nango_webhook_unavailable(r);
    }

    if (good == 0) {
        return ngx_http_nango_webhook_forged(r);
    }

    if (body.data == NULL) {
        p = ngx_pnalloc(r->pool, body.len);
        if (p == NULL) {
            return ngx_http_nango_webhook_unavailable(r);
        }

        body.data = p;

        for (cl = r->request_body->bufs; cl; cl = cl->next) {

            /* The end of a body may be a buffer without any memory. */

            if (cl->buf->last != cl->buf->pos) {
                p = ngx_cpymem(p, cl->buf->pos,
                               cl->buf->last - cl->buf->pos);
            }
        }
    }

    if (nango_event_parse_head(&event, body) != 0) {
        return ngx_http_nango_webhook_unavailable(r);
    }

    rc = ngx_http_nango_webhook_submit(r, &event, &body, NULL, NULL);

    nango_event_free(&event);

    return rc;
}


/*
 * Of what is larger than our memory or in a file, which another location may
 * have done by its own rules.
 */

static ngx_int_t
ngx_http_nango_webhook_file(ngx_http_request_t *r, size_t size)
{
    ngx_temp_file_t                *tf;
    ngx_thread_task_t              *task;
    ngx_pool_cleanup_t             *cln;
    ngx_http_nango_ctx_t           *ctx;
    ngx_http_nango_webhook_t       *w;
    ngx_http_nango_webhook_task_t  *t;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    w = ctx->state;
    tf = r->request_body->temp_file;

    if (ngx_nango_store() == NULL
        || (tf && tf->file.fd == NGX_INVALID_FILE))     /* sent elsewhere */
    {
        return ngx_http_nango_webhook_unavailable(r);
    }

    task = ngx_thread_task_alloc(r->pool,
                                 sizeof(ngx_http_nango_webhook_task_t));
    cln = ngx_pool_cleanup_add(r->pool, 0);

    if (task == NULL || cln == NULL) {
        return ngx_http_nango_webhook_unavailable(r);
    }

    t = task->ctx;

    t->request = r;
    t->store = ngx_nango_store();

    t->environment = w->environment;
    t->size = size;
    t->body_held = -1;

    if (tf) {
        t->fd = tf->file.fd;

    } else {
        t->bufs = r->request_body->bufs;
    }

    if (tf && w->own) {
        t->path = tf->file.name;
    }

    ngx_memcpy(t->mac, w->mac, NANGO_HMAC_LEN);

    cln->handler = ngx_http_nango_webhook_task_cleanup;
    cln->data = t;

    task->handler = ngx_http_nango_webhook_thread;
    task->event.data = t;
    task->event.handler = ngx_http_nango_webhook_thread_done;

    if (ngx_http_nango_thread_post(r, task) != NGX_OK) {
        return ngx_http_nango_webhook_unavailable(r);
    }

    return NGX_AGAIN;
}


static void
ngx_http_nango_webhook_thread(void *data, ngx_log_t *log)
{
    ngx_http_nango_webhook_task_t *t = data;

    void         *map;
    u_char       *p;
    ngx_chain_t  *cl;

    t->rc = NGX_ERROR;

    if (t->bufs) {
        map = malloc(t->size);
        if (map == NULL) {
            return;
        }

        p = map;

        for (cl = t->bufs; cl; cl = cl->next) {

            /* The end of a body may be a buffer without any memory. */

            if (cl->buf->last != cl->buf->pos) {
                p = ngx_cpymem(p, cl->buf->pos,
                               cl->buf->last - cl->buf->pos);
            }
        }

        t->rc = ngx_http_nango_webhook_keep(t, nango_str(map, t->size));

        free(map);

        return;
    }

    if (t->size == 0) {
        t->rc = ngx_http_nango_webhook_keep(t, nango_str("", 0));
        return;
    }

    map = mmap(NULL, t->size, PROT_READ, MAP_PRIVATE, t->fd, 0);

    if (map == MAP_FAILED) {
        ngx_log_error(NGX_LOG_CRIT, log, ngx_errno, "mmap(%uz) failed",
                      t->size);
        return;
    }

    t->rc = ngx_http_nango_webhook_keep(t, nango_str(map, t->size));

    (void) munmap(map, t->size);
}


/*
 * NGX_OK, NGX_DECLINED: forged, NGX_ERROR.  A file that the disk cannot read
 * any more is a fault to its map.
 */

static ngx_int_t
ngx_http_nango_webhook_keep(ngx_http_nango_webhook_task_t *t, nango_str_t body)
{
    nango_rc_e     rc;
    ngx_int_t      good;
    nango_guard_t  guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        good = ngx_http_nango_webhook_look(t, body);

    } else {
        ngx_memzero(&t->event, sizeof(nango_event_t));

        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                      "nango: the file of a body cannot be read");
        good = NGX_ERROR;
    }

    nango_guard_end(&guard);

    if (good != NGX_OK) {
        return good;
    }

    if (t->path.len) {
        rc = nango_body_adopt(t->store, t->fd, (char *) t->path.data,
                              t->body_name, &t->body_held, &t->error);

    } else {
        rc = nango_body_copy(t->store, body, t->body_name, &t->body_held,
                             &t->error);
    }

    return (rc == NANGO_OK) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_nango_webhook_look(ngx_http_nango_webhook_task_t *t, nango_str_t body)
{
    int  good;

    good = nango_verify(t->environment->signing_keys, body, t->mac);

    if (good != 1) {
        return good == 0 ? NGX_DECLINED : NGX_ERROR;
    }

    return nango_event_parse_head(&t->event, body) == 0 ? NGX_OK : NGX_ERROR;
}


static void
ngx_http_nango_webhook_thread_done(ngx_event_t *ev)
{
    ngx_int_t                       rc;
    nango_str_t                     body;
    ngx_http_request_t             *r;
    ngx_http_nango_ctx_t           *ctx;
    ngx_http_nango_webhook_t       *w;
    ngx_http_nango_webhook_task_t  *t;

    t = ev->data;
    r = t->request;

    if (ngx_http_nango_thread_done(r, ev) != NGX_OK) {
        return;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    w = ctx->state;

    switch (t->rc) {

    case NGX_OK:

        if (ngx_nango_trouble_over(&ngx_http_nango_webhook_trouble)) {
            ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                          "nango: large bodies are being stored again");
        }

        /* Whole and signed: kept, also if the client has left. */

        body = nango_str(NULL, t->size);
        rc = ngx_http_nango_webhook_submit(r, &t->event, &body, t->body_name,
                                           &t->body_held);
        break;

    case NGX_DECLINED:
        rc = ngx_http_nango_webhook_forged(r);
        break;

    default:

        if (t->error.code != NANGO_OK
            && ngx_nango_trouble(&ngx_http_nango_webhook_trouble,
                                 t->error.code))
        {
            ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                          "nango: %s; webhooks with large bodies are answered "
                          "503 meanwhile", t->error.text);
        }

        rc = ngx_http_nango_webhook_unavailable(r);
        break;
    }

    if (w->gone) {
        ngx_http_nango_webhook_cleanup(w);
        ngx_http_nango_thread_gone(r);
        return;
    }

    if (rc == NGX_AGAIN) {
        return;
    }

    ngx_http_nango_finish(r, rc);
}


static void
ngx_http_nango_webhook_task_cleanup(void *data)
{
    ngx_http_nango_webhook_task_t *t = data;

    if (t->body_held != -1) {
        (void) close(t->body_held);
    }

    nango_event_free(&t->event);
}


/* dst may be NULL: how long they are. */

static size_t
ngx_http_nango_webhook_headers(ngx_http_request_t *r, u_char *dst)
{
    size_t            len, n;
    ngx_uint_t        i, k;
    ngx_str_t        *drop;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    len = 0;
    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return len;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        n = h[i].key.len + h[i].value.len + sizeof(": \r\n") - 1;

        if (len + n > NANGO_RECORD_HEADERS_MAX) {
            continue;
        }

        if (h[i].key.len > 12
            && ngx_strncmp(h[i].lowcase_key, "x-forwarded-", 12) == 0)
        {
            continue;
        }

        for (k = 0; ngx_http_nango_webhook_dropped[k].len; k++) {
            drop = &ngx_http_nango_webhook_dropped[k];

            if (h[i].key.len == drop->len
                && ngx_strncmp(h[i].lowcase_key, drop->data, drop->len) == 0)
            {
                break;
            }
        }

        if (ngx_http_nango_webhook_dropped[k].len) {
            continue;
        }

        len += n;

        if (dst) {
            dst = ngx_cpymem(dst, h[i].key.data, h[i].key.len);
            *dst++ = ':';
            *dst++ = ' ';
            dst = ngx_cpymem(dst, h[i].value.data, h[i].value.len);
            *dst++ = '\r';
            *dst++ = '\n';
        }
    }
}


/*
 * NGX_AGAIN: the job is on its way.  Else what to finalize with.  *body_held
 * becomes the job's, which leaves -1.
 */

static ngx_int_t
ngx_http_nango_webhook_submit(ngx_http_request_t *r, nango_event_t *event,
    nango_str_t *body, u_char *body_name, int *body_held)
{
    u_char                     headers[NANGO_RECORD_HEADERS_MAX];
    size_t                     size;
    ngx_int_t                  rc;
    nango_record_t             rec;
    ngx_nango_job_t           *job;
    ngx_http_nango_ctx_t      *ctx;
    ngx_http_nango_webhook_t  *w;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    w = ctx->state;

    ngx_memzero(&rec, sizeof(nango_record_t));

    rec.source = NANGO_SOURCE_NANGO;
    rec.type = event->type;
    rec.operation = event->operation;
    rec.success = event->success;
    rec.received_at = w->received_at;
    ngx_memcpy(rec.hmac, w->mac, NANGO_HMAC_LEN);
    rec.environment = ngx_nango_str(&w->environment->name);
    rec.type_name = event->type_name;
    rec.integration = event->integration;
    rec.connection_id = event->connection_id;

    rec.headers.data = headers;
    rec.headers.len = ngx_http_nango_webhook_headers(r, headers);

    rec.body_len = body->len;

    if (body_name) {
        rec.body_file = 1;
        rec.body = nango_str(body_name, NANGO_BODY_NAME_LEN);

    } else {
        rec.body = *body;
    }

    ctx->event = 1;
    ctx->type = event->type;
    ctx->operation = event->operation;

    size = nango_record_size(&rec);
    job = size ? ngx_nango_job_create(size) : NULL;

    if (job == NULL) {
        rc = NGX_ERROR;
        goto failed;
    }

    nango_record_encode(&rec, job->record);

    if (nango_type_dedupes(event->type)) {
        job->write.dedupe_ms = w->environment->dedupe;
    }

    job->write.received_at = w->received_at;
    ngx_memcpy(job->write.environment, w->environment->key, NANGO_KEY_LEN);
    ngx_memcpy(job->write.hmac, w->mac, NANGO_HMAC_LEN);

    if (body_name) {
        job->body_file = 1;
        ngx_memcpy(job->body_name, body_name, NANGO_BODY_NAME_LEN);

        job->body_held = *body_held;
        *body_held = -1;
    }

    job->handler = ngx_http_nango_webhook_done;
    job->data = w;

    rc = ngx_nango_job_submit(job);

    if (rc == NGX_OK) {
        w->job = job;
        return NGX_AGAIN;
    }

    ngx_nango_job_free(job);

failed:

    /* A body that was adopted is an orphan for the leader to sweep. */

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "nango: the webhook cannot be stored: %s",
                  rc == NGX_BUSY ? "too many wait already"
                  : rc == NGX_DECLINED ? "the store is not open"
                                       : "no memory");

    return ngx_http_nango_webhook_unavailable(r);
}


static void
ngx_http_nango_webhook_done(ngx_nango_job_t *job)
{
    u_char                    *p;
    ngx_int_t                  rc;
    ngx_str_t                  body;
    ngx_http_request_t        *r;
    ngx_http_nango_ctx_t      *ctx;
    ngx_http_nango_webhook_t  *w;

    w = job->data;
    r = w->request;

    w->job = NULL;

    ngx_http_set_log_request(r->connection->log, r);

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    ctx->commit = 1;
    ctx->commit_time = job->committed - job->submitted;

    if (job->write.result != NANGO_WRITE_STORED
        && job->write.result != NANGO_WRITE_DUPLICATE)
    {
        ngx_http_nango_finish(r, ngx_http_nango_webhook_unavailable(r));
        return;
    }

    ctx->sequence = job->write.sequence;

    p = ngx_pnalloc(r->pool, sizeof("{\"ack\":true,\"sequence\":,"
                                    "\"duplicate\":true}") + NGX_INT64_LEN);

    if (p == NULL) {
        rc = ngx_http_nango_webhook_unavailable(r);
        ngx_http_nango_finish(r, rc);
        return;
    }

    body.data = p;

    if (job->write.result == NANGO_WRITE_DUPLICATE) {
        ngx_nango_count(NGX_NANGO_WEBHOOKS_DUPLICATE);
        ngx_str_set(&ctx->result, "duplicate");

        p = ngx_sprintf(p, "{\"ack\":true,\"sequence\":%uL,"
                        "\"duplicate\":true}", job->write.sequence);

    } else {
        ngx_nango_count(NGX_NANGO_WEBHOOKS_STORED);
        ngx_str_set(&ctx->result, "stored");

        p = ngx_sprintf(p, "{\"ack\":true,\"sequence\":%uL}",
                        job->write.sequence);
    }

    body.len = p - body.data;

    ngx_http_nango_finish(r, ngx_http_nango_answer(r, NGX_HTTP_OK, &body));
}


/* Nobody waits for the answer, and yet it counts. */

static void
ngx_http_nango_webhook_abandoned(ngx_nango_job_t *job)
{
    switch (job->write.result) {

    case NANGO_WRITE_STORED:
        ngx_nango_count(NGX_NANGO_WEBHOOKS_STORED);
        break;

    case NANGO_WRITE_DUPLICATE:
        ngx_nango_count(NGX_NANGO_WEBHOOKS_DUPLICATE);
        break;

    default:
        ngx_nango_count(NGX_NANGO_WEBHOOKS_UNAVAILABLE);
        break;
    }
}


/* The job goes on; only nobody waits for it. */

static void
ngx_http_nango_webhook_cleanup(void *data)
{
    ngx_http_nango_webhook_t *w = data;

    w->gone = 1;

    ngx_http_nango_webhook_held -= w->held;
    w->held = 0;

    if (w->waiting) {
        ngx_nango_store_wait_cancel(&w->wait);
        w->waiting = 0;
    }

    if (w->job) {
        w->job->handler = ngx_http_nango_webhook_abandoned;
        w->job->data = NULL;
        w->job = NULL;
    }
}


/*
 * A redirect by "return", a refusal by auth_request, limit_req's status: what
 * another module answers here is a webhook that Nango will not send again,
 * and somebody should know.  5xx is repeated, and who is cut repeats as well.
 */

ngx_int_t
ngx_http_nango_webhook_log_handler(ngx_http_request_t *r)
{
    char                       *action;
    ngx_connection_t           *c;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (nlcf->endpoint.handler != ngx_http_nango_webhook_handler
        || r->method != NGX_HTTP_POST
        || !r->header_sent
        || r->headers_out.status >= NGX_HTTP_INTERNAL_SERVER_ERROR)
    {
        return NGX_OK;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    if (ctx && ctx->answered) {
        return NGX_OK;
    }

    /* A body that broke off: nginx says 400, and nobody is there to read it. */

    c = r->connection;

    if (r->headers_out.status == NGX_HTTP_BAD_REQUEST
        && (c->error || c->read->eof || c->read->pending_eof))
    {
        return NGX_OK;
    }

    ngx_nango_count(NGX_NANGO_WEBHOOKS_LOST);

    /* nginx would add that this was "while logging request". */

    action = r->connection->log->action;
    r->connection->log->action = NULL;

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "a webhook was answered %ui by another directive than "
                  "nango_webhook; Nango will not send it again",
                  r->headers_out.status);

    r->connection->log->action = action;

    return NGX_OK;
}
