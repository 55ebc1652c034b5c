/*
 * Copyright (C) nginx-nango authors
 *
 * POST of nango_status with manage: what an operator does about a subscriber.
 *
 *     {"action":"redeliver","subscriber":"app"[,"sequence":N]}
 *     {"action":"resume","subscriber":"app"}
 *     {"action":"forget","subscriber":"app"}
 *
 * Each is a write to the state, which waits for the disk and for the leader's
 * batch: it is done by nginx's thread pool, in portions that leave the leader
 * its turns, and for a bounded time.  Once begun it is seen to its end, also
 * if the client leaves.
 */

#include "ngx_http_nango_status.h"
#include "ngx_http_nango_look.h"

#include "nango_json.h"


#define NGX_HTTP_NANGO_ACT_PORTION  1000
#define NGX_HTTP_NANGO_ACT_TIME     5000000     /* us */
#define NGX_HTTP_NANGO_ACT_TIMEOUT  60000


typedef enum {
    NGX_HTTP_NANGO_REDELIVER = 0,
    NGX_HTTP_NANGO_RESUME,
    NGX_HTTP_NANGO_FORGET
} ngx_http_nango_act_e;


typedef struct {
    ngx_http_request_t        *request;
    ngx_http_nango_look_t      look;
    ngx_http_nango_act_e       action;
    uint64_t                   sequence;    /* 0: all */
    u_char                     key[NANGO_KEY_LEN];
    nango_str_t                environment; /* as the store has them */
    nango_str_t                name;
    unsigned                   gone:1;      /* nobody waits for an answer */
} ngx_http_nango_act_t;


/* What the thread needs; it never touches the request. */
typedef struct {
    ngx_http_nango_act_t      *act;
    nango_store_t             *store;
    ngx_http_nango_act_e       action;
    uint64_t                   sequence;
    u_char                     key[NANGO_KEY_LEN];

    /* The result. */
    nango_rc_e                 rc;
    uint64_t                   count;
    int                        more;
    nango_error_t              error;
} ngx_http_nango_act_task_t;


static ngx_int_t ngx_http_nango_act_request(ngx_http_request_t *r,
    nango_str_t body);
static const char *ngx_http_nango_act_parse(ngx_http_nango_act_t *act,
    nango_str_t body, u_char *buf, nango_str_t *environment,
    nango_str_t *name);
static ngx_uint_t ngx_http_nango_act_configured(ngx_http_request_t *r,
    ngx_http_nango_act_t *act);
static ngx_int_t ngx_http_nango_act_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_act_then(ngx_http_request_t *r, ngx_int_t rc,
    void *data);
static void ngx_http_nango_act_thread(void *data, ngx_log_t *log);
static void ngx_http_nango_act_done(ngx_event_t *ev);
static ngx_int_t ngx_http_nango_act_answer(ngx_http_request_t *r,
    ngx_http_nango_act_task_t *t);
static ngx_int_t ngx_http_nango_act_unavailable(ngx_http_request_t *r);
static void ngx_http_nango_act_cleanup(void *data);


static const char  *ngx_http_nango_acts[] = { "redeliver", "resume", "forget" };


ngx_int_t
ngx_http_nango_status_act(ngx_http_request_t *r)
{
    return ngx_http_nango_read(r, ngx_http_nango_act_request);
}


static ngx_int_t
ngx_http_nango_act_request(ngx_http_request_t *r, nango_str_t body)
{
    u_char                *buf;
    const char            *error;
    nango_str_t            environment, name;
    ngx_http_cleanup_t    *cln;
    ngx_http_nango_act_t  *act;

    act = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_act_t));
    buf = ngx_pnalloc(r->pool, body.len + 1);
    cln = ngx_http_cleanup_add(r, 0);

    if (act == NULL || buf == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    act->request = r;

    cln->handler = ngx_http_nango_act_cleanup;
    cln->data = act;

    error = ngx_http_nango_act_parse(act, body, buf, &environment, &name);

    if (error) {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    error);
    }

    if (ngx_http_nango_status_key(r, environment, name, act->key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (act->action == NGX_HTTP_NANGO_FORGET
        && ngx_http_nango_act_configured(r, act))
    {
        return ngx_http_nango_error(r, NGX_HTTP_CONFLICT,
                                    "subscriber_configured",
                                    "The subscriber is in the configuration; "
                                    "remove it there first");
    }

    act->look.look = ngx_http_nango_act_look;
    act->look.then = ngx_http_nango_act_then;
    act->look.data = act;
    act->look.now = 1;
    act->look.busy = 1;

    return ngx_http_nango_look(r, &act->look);
}


/* NULL, or what is wrong.  The strings are in buf, which is as long as body. */

static const char *
ngx_http_nango_act_parse(ngx_http_nango_act_t *act, nango_str_t body,
    u_char *buf, nango_str_t *environment, nango_str_t *name)
{
    off_t                n;
    ngx_uint_t           i;
    nango_str_t          s[3];
    nango_json_member_t  m[4];

    ngx_memzero(m, sizeof(m));

    m[0].name = nango_str("action", 6);
    m[1].name = nango_str("environment", 11);
    m[2].name = nango_str("subscriber", 10);
    m[3].name = nango_str("sequence", 8);

    if (nango_json_members(body, m, 4) != NANGO_JSON_OBJECT) {
        return "The body must be a JSON object";
    }

    if (nango_json_extra(body, m, 4, NULL) != 0) {
        return "The body has a field that is not known";
    }

    for (i = 0; i < 3; i++) {
        s[i] = nango_str(NULL, 0);

        if (m[i].value.data == NULL) {
            continue;
        }

        if (nango_json_string(m[i].value, buf, m[i].value.len, &s[i])
            != NANGO_JSON_STRING_OK)
        {
            return "The body has a field that is no string";
        }

        buf += s[i].len;
    }

    if (s[0].data == NULL || s[2].data == NULL) {
        return "The body must have action and subscriber";
    }

    for (i = 0; !nango_str_is(s[0], ngx_http_nango_acts[i]); i++) {
        if (i == NGX_HTTP_NANGO_FORGET) {
            return "action is redeliver, resume or forget";
        }
    }

    act->action = i;

    if (m[3].value.data) {
        n = ngx_atoof((u_char *) m[3].value.data, m[3].value.len);

        if (n == NGX_ERROR || n == 0) {
            return "sequence is a positive integer";
        }

        if (act->action != NGX_HTTP_NANGO_REDELIVER) {
            return "sequence is for redeliver only";
        }

        act->sequence = n;
    }

    *environment = s[1];
    *name = s[2];

    return NULL;
}


static ngx_uint_t
ngx_http_nango_act_configured(ngx_http_request_t *r,
    ngx_http_nango_act_t *act)
{
    ngx_uint_t                    i;
    ngx_nango_subscriber_t      **s;
    ngx_http_nango_main_conf_t   *nmcf;

    nmcf = ngx_http_get_module_main_conf(r, ngx_http_nango_module);
    s = nmcf->subscribers.elts;

    for (i = 0; i < nmcf->subscribers.nelts; i++) {
        if (ngx_memcmp(s[i]->key, act->key, NANGO_KEY_LEN) == 0) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_nango_act_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_act_t *act = data;

    int             rc;
    nango_error_t   err;
    nango_ledger_t  ledger;

    rc = nango_reader_ledger(reader, act->key, &ledger, &err);

    if (rc == -1) {
        return ngx_http_nango_unreadable(r, &err);
    }

    if (rc == 0) {
        return NGX_DECLINED;
    }

    act->environment = ledger.environment;
    act->name = ledger.name;

    if (ngx_http_nango_copy(r->pool, &act->environment) != NGX_OK
        || ngx_http_nango_copy(r->pool, &act->name) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_act_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_act_t *act = data;

    ngx_thread_pool_t          *tp;
    ngx_thread_task_t          *task;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_act_task_t  *t;

    static ngx_str_t  name = ngx_string("default");

    if (rc == NGX_DECLINED) {
        return ngx_http_nango_status_unknown(r);
    }

    if (rc == NGX_BUSY) {
        return ngx_http_nango_act_unavailable(r);
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    tp = ngx_thread_pool_get((ngx_cycle_t *) ngx_cycle, &name);
    task = ngx_thread_task_alloc(r->pool, sizeof(ngx_http_nango_act_task_t));

    if (tp == NULL || task == NULL) {
        return ngx_http_nango_act_unavailable(r);
    }

    t = task->ctx;

    t->act = act;
    t->store = ngx_nango_store();
    t->action = act->action;
    t->sequence = act->sequence;
    ngx_memcpy(t->key, act->key, NANGO_KEY_LEN);

    task->handler = ngx_http_nango_act_thread;
    task->event.data = t;
    task->event.handler = ngx_http_nango_act_done;
    task->event.log = r->connection->log;

    if (ngx_thread_task_post(tp, task) != NGX_OK) {
        return ngx_http_nango_act_unavailable(r);
    }

    /* The pool, which holds the task, lives until the thread is done. */

    r->main->blocked++;
    r->aio = 1;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    ctx->insist = 1;

    /* Before 1.25.4 a posted task alone does not hold an exiting worker. */

    ngx_add_timer(&task->event, NGX_HTTP_NANGO_ACT_TIMEOUT);

    return NGX_AGAIN;
}


static void
ngx_http_nango_act_thread(void *data, ngx_log_t *log)
{
    ngx_http_nango_act_task_t *t = data;

    uint64_t  start, n;

    start = ngx_nango_ticks();

    if (t->action == NGX_HTTP_NANGO_RESUME) {
        t->rc = nango_delivery_resume(t->store, t->key, ngx_nango_now(),
                                      &t->error);
        t->count = (t->rc == NANGO_OK) ? 1 : 0;
        return;
    }

    do {
        n = 0;
        t->more = 0;

        if (t->action == NGX_HTTP_NANGO_REDELIVER) {
            t->rc = nango_delivery_redeliver(t->store, t->key, t->sequence,
                                             NGX_HTTP_NANGO_ACT_PORTION,
                                             ngx_nango_now(), &n, &t->more,
                                             &t->error);

        } else {
            t->rc = nango_delivery_forget(t->store, t->key,
                                          NGX_HTTP_NANGO_ACT_PORTION, &n,
                                          &t->more, &t->error);
        }

        if (t->rc != NANGO_OK) {
            return;
        }

        t->count += n;

    } while (t->more && ngx_nango_ticks() - start < NGX_HTTP_NANGO_ACT_TIME);
}


static void
ngx_http_nango_act_done(ngx_event_t *ev)
{
    ngx_int_t                   rc;
    ngx_connection_t           *c;
    ngx_http_request_t         *r;
    ngx_http_nango_act_task_t  *t;

    t = ev->data;
    r = t->act->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    if (ev->timedout) {
        ev->timedout = 0;

        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "nango: an act for a subscriber has been waiting for "
                      "the disk for a minute");

        ngx_add_timer(ev, NGX_HTTP_NANGO_ACT_TIMEOUT);
        return;
    }

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    r->main->blocked--;
    r->aio = 0;

    if (t->act->gone) {
        r->write_event_handler(r);
        ngx_http_run_posted_requests(c);
        return;
    }

    rc = ngx_http_nango_act_answer(r, t);

    ngx_http_nango_finish(r, rc);
}


static ngx_int_t
ngx_http_nango_act_answer(ngx_http_request_t *r,
    ngx_http_nango_act_task_t *t)
{
    u_char     *p;
    ngx_str_t   body, environment, name;

    /* The subscriber was there: so there was nothing to do it to. */

    if (t->rc == NANGO_EINVAL) {

        if (t->sequence) {
            return ngx_http_nango_error(r, NGX_HTTP_NOT_FOUND,
                                        "event_not_found",
                                        "The subscriber has no such dead "
                                        "event");
        }

        t->rc = NANGO_OK;
    }

    if (t->rc != NANGO_OK) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: an act for a subscriber failed: %s",
                      t->error.text);

        if (nango_store_needs_recovery(t->store)) {
            ngx_nango_store_unreadable(&t->error);
        }

        /* Some portions may be done; asking again goes on. */

        return ngx_http_nango_act_unavailable(r);
    }

    environment.len = t->act->environment.len;
    environment.data = (u_char *) t->act->environment.data;
    name.len = t->act->name.len;
    name.data = (u_char *) t->act->name.data;

    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                  "nango: %s of subscriber \"%V\" of environment \"%V\": %uL",
                  ngx_http_nango_acts[t->action], &name, &environment,
                  t->count);

    body.data = ngx_pnalloc(r->pool, sizeof("{\"success\":true,\"count\":,"
                                            "\"more\":false}")
                                     + NGX_INT64_LEN);
    if (body.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_sprintf(body.data, "{\"success\":true,\"count\":%uL,\"more\":%s}",
                    t->count, t->more ? "true" : "false");

    body.len = p - body.data;

    return ngx_http_nango_answer(r, NGX_HTTP_OK, &body);
}


static ngx_int_t
ngx_http_nango_act_unavailable(ngx_http_request_t *r)
{
    return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                "store_unavailable",
                                "The store cannot be written now");
}


static void
ngx_http_nango_act_cleanup(void *data)
{
    ngx_http_nango_act_t *act = data;

    act->gone = 1;
}
