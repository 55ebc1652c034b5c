/*
 * Copyright (C) nginx-nango authors
 *
 * GET of nango_status with manage, "?dead=1" or "?waiting=1": which events a
 * subscriber is owed.  Numbers only; what is in an event its log has.
 */

#include "ngx_http_nango_status.h"
#include "ngx_http_nango_json.h"
#include "ngx_http_nango_look.h"


#define NGX_HTTP_NANGO_OWED_LIMIT      100
#define NGX_HTTP_NANGO_OWED_LIMIT_MAX  1000


typedef struct {
    ngx_http_nango_look_t      look;
    u_char                     key[NANGO_KEY_LEN];
    ngx_uint_t                 dead;
    uint64_t                   after;
    ngx_uint_t                 limit;

    json_t                    *list;        /* while it is read */
    uint64_t                   last;
    ngx_uint_t                 failed;
    ngx_str_t                  text;
} ngx_http_nango_owed_t;


static ngx_int_t ngx_http_nango_owed_number(ngx_http_request_t *r,
    const char *name, off_t max, off_t *n);
static ngx_int_t ngx_http_nango_owed_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static void ngx_http_nango_owed_visit(void *data, const nango_owed_t *row);
static ngx_int_t ngx_http_nango_owed_then(ngx_http_request_t *r, ngx_int_t rc,
    void *data);


ngx_int_t
ngx_http_nango_status_owed(ngx_http_request_t *r, ngx_uint_t dead)
{
    off_t                   after, limit;
    ngx_int_t               rc;
    ngx_str_t               environment, name;
    ngx_http_nango_owed_t  *o;

    o = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_owed_t));
    if (o == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    after = 0;
    limit = NGX_HTTP_NANGO_OWED_LIMIT;

    if (ngx_http_arg(r, (u_char *) "subscriber", 10, &name) != NGX_OK
        || ngx_http_nango_owed_number(r, "after", NGX_MAX_OFF_T_VALUE, &after)
           != NGX_OK
        || ngx_http_nango_owed_number(r, "limit",
                                      NGX_HTTP_NANGO_OWED_LIMIT_MAX, &limit)
           != NGX_OK
        || limit == 0)
    {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    "The query has subscriber, and perhaps "
                                    "environment, after and limit, 1 to 1000");
    }

    if (ngx_http_arg(r, (u_char *) "environment", 11, &environment)
        != NGX_OK)
    {
        ngx_str_null(&environment);
    }

    if (ngx_http_nango_status_key(r, ngx_nango_str(&environment),
                                  ngx_nango_str(&name), o->key)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    o->dead = dead;
    o->after = after;
    o->limit = limit;

    o->look.look = ngx_http_nango_owed_look;
    o->look.then = ngx_http_nango_owed_then;
    o->look.data = o;
    o->look.now = 1;

    rc = ngx_http_nango_look(r, &o->look);

    return (rc == NGX_AGAIN) ? ngx_http_nango_held(r) : rc;
}


/* Absent: *n stays what it is. */

static ngx_int_t
ngx_http_nango_owed_number(ngx_http_request_t *r, const char *name, off_t max,
    off_t *n)
{
    ngx_str_t  value;

    if (ngx_http_arg(r, (u_char *) name, ngx_strlen(name), &value) != NGX_OK) {
        return NGX_OK;
    }

    *n = ngx_atoof(value.data, value.len);

    return (*n == NGX_ERROR || *n > max) ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_nango_owed_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_owed_t *o = data;

    int             rc;
    json_t         *json, *next;
    ngx_int_t       ok;
    nango_error_t   err;
    nango_ledger_t  ledger;

    rc = nango_reader_ledger(reader, o->key, &ledger, &err);

    if (rc == -1) {
        return ngx_http_nango_unreadable(r, &err);
    }

    if (rc == 0) {
        return NGX_DECLINED;
    }

    json = json_pack("{s:o, s:o}",
                     "environment",
                     ngx_http_nango_json_string(ledger.environment),
                     "subscriber", ngx_http_nango_json_string(ledger.name));

    o->list = json_array();
    o->failed = 0;
    o->last = 0;

    rc = nango_reader_owed(reader, o->key, o->dead, o->after, o->limit,
                           ngx_http_nango_owed_visit, o, &err);

    if (rc == -1) {
        json_decref(o->list);
        json_decref(json);
        return ngx_http_nango_unreadable(r, &err);
    }

    next = json_null();

    if (rc == 1 && o->last != 0) {
        next = json_integer((json_int_t) o->last);
    }

    ok = NGX_OK;

    if (json_object_set_new(json, o->dead ? "dead" : "waiting", o->list) != 0
        || json_object_set_new(json, "next", next) != 0
        || o->failed
        || ngx_http_nango_json_text(r, json, &o->text) != NGX_OK)
    {
        ok = NGX_ERROR;
    }

    json_decref(json);

    return ok;
}


static void
ngx_http_nango_owed_visit(void *data, const nango_owed_t *row)
{
    ngx_http_nango_owed_t *o = data;

    json_t  *json;

    o->last = row->sequence;

    json = json_pack("{s:I, s:I, s:I, s:o}",
                     "sequence", (json_int_t) row->sequence,
                     "attempts", (json_int_t) row->attempts,
                     "status", (json_int_t) row->status,
                     "since", ngx_http_nango_json_time(row->since));

    if (!o->dead
        && json_object_set_new(json, "next_at",
                               ngx_http_nango_json_time(row->next_at))
           != 0)
    {
        o->failed = 1;
    }

    if (json_array_append_new(o->list, json) != 0) {
        o->failed = 1;
    }
}


static ngx_int_t
ngx_http_nango_owed_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_owed_t *o = data;

    switch (rc) {

    case NGX_OK:
        return ngx_http_nango_answer(r, NGX_HTTP_OK, &o->text);

    case NGX_DECLINED:
        return ngx_http_nango_status_unknown(r);

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }
}
