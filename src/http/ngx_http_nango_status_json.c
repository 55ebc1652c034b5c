/*
 * Copyright (C) nginx-nango authors
 *
 * nango_status as JSON.
 */

#include "ngx_http_nango_status.h"
#include "ngx_http_nango_json.h"


static ngx_int_t ngx_http_nango_status_put(json_t *json,
    const ngx_http_nango_fact_t *fact, void *base, ngx_uint_t known);
static json_t *ngx_http_nango_status_object(ngx_http_nango_status_t *st);
static ngx_int_t ngx_http_nango_status_store(json_t *json,
    ngx_http_nango_status_t *st);
static json_t *ngx_http_nango_status_env(ngx_http_nango_status_t *st,
    ngx_http_nango_status_env_t *env);
static json_t *ngx_http_nango_status_sub(ngx_http_nango_status_sub_t *sub);


ngx_int_t
ngx_http_nango_status_json(ngx_http_request_t *r, ngx_http_nango_status_t *st,
    ngx_str_t *text)
{
    json_t                       *json, *list;
    ngx_int_t                     rc;
    ngx_uint_t                    i;
    ngx_http_nango_status_env_t  *env;
    ngx_http_nango_status_sub_t  *sub;

    json = ngx_http_nango_status_object(st);
    rc = (json == NULL) ? NGX_ERROR : NGX_OK;

    list = json_array();
    env = st->environments.elts;

    for (i = 0; i < st->environments.nelts; i++) {
        if (json_array_append_new(list, ngx_http_nango_status_env(st, &env[i]))
            != 0)
        {
            rc = NGX_ERROR;
        }
    }

    if (json_object_set_new(json, "environments", list) != 0) {
        rc = NGX_ERROR;
    }

    list = json_array();
    sub = st->subscribers.elts;

    for (i = 0; i < st->subscribers.nelts; i++) {
        if (json_array_append_new(list, ngx_http_nango_status_sub(&sub[i]))
            != 0)
        {
            rc = NGX_ERROR;
        }
    }

    if (json_object_set_new(json, "subscribers", list) != 0) {
        rc = NGX_ERROR;
    }

    if (rc == NGX_OK) {
        rc = ngx_http_nango_json_text(r, json, text);
    }

    json_decref(json);

    return rc;
}


static ngx_int_t
ngx_http_nango_status_put(json_t *json, const ngx_http_nango_fact_t *fact,
    void *base, ngx_uint_t known)
{
    json_t    *value;
    uint64_t   n;

    n = ngx_http_nango_fact(fact, base);

    if (fact->store && !known) {
        value = json_null();
        goto put;
    }

    switch (fact->kind) {

    case NGX_HTTP_NANGO_FACT_FLAG:
        value = json_boolean(n != 0);
        break;

    case NGX_HTTP_NANGO_FACT_TIME:
        value = ngx_http_nango_json_time(n);
        break;

    default:
        value = json_integer((json_int_t) n);
        break;
    }

put:

    return json_object_set_new(json, fact->name, value) == 0 ? NGX_OK
                                                             : NGX_ERROR;
}


/* What is the store's is null while that cannot be read. */

static json_t *
ngx_http_nango_status_object(ngx_http_nango_status_t *st)
{
    json_t                       *json, *section;
    ngx_int_t                     rc;
    const char                   *name;
    const ngx_http_nango_fact_t  *fact;

    json = json_pack("{s:s}", "version", NGX_NANGO_VERSION);
    section = json;
    name = "";
    rc = (json == NULL) ? NGX_ERROR : NGX_OK;

    for (fact = ngx_http_nango_facts; rc == NGX_OK && fact->name; fact++) {

        if (fact->section && strcmp(fact->section, name) != 0) {
            name = fact->section;
            section = (st->store || strcmp(name, "store") != 0)
                      ? json_object() : json_null();

            if (json_object_set_new(json, name, section) != 0) {
                rc = NGX_ERROR;
                break;
            }

            if (strcmp(name, "store") == 0 && json_is_object(section)) {
                rc = ngx_http_nango_status_store(section, st);
            }
        }

        if (json_is_object(section)
            && ngx_http_nango_status_put(section, fact, st, st->open)
               != NGX_OK)
        {
            rc = NGX_ERROR;
        }
    }

    if (rc != NGX_OK) {
        json_decref(json);
        return NULL;
    }

    return json;
}


static ngx_int_t
ngx_http_nango_status_store(json_t *json, ngx_http_nango_status_t *st)
{
    json_t  *trouble, *log;

    trouble = json_null();
    log = json_null();

    if (st->open) {
        log = ngx_http_nango_json_hex(st->log, NANGO_STORE_ID_LEN);
    }

    if (st->troubled) {
        trouble = json_pack("{s:s}", "code",
                            ngx_http_nango_trouble_word(st->trouble.code));

        if (st->manage
            && json_object_set_new(trouble, "message",
                   ngx_http_nango_json_string(
                       nango_str(st->trouble.text,
                                 ngx_strlen(st->trouble.text))))
               != 0)
        {
            json_decref(trouble);
            json_decref(log);
            return NGX_ERROR;
        }
    }

    if (json_object_set_new(json, "log", log) != 0) {
        json_decref(trouble);
        return NGX_ERROR;
    }

    return json_object_set_new(json, "trouble", trouble) == 0 ? NGX_OK
                                                              : NGX_ERROR;
}


static json_t *
ngx_http_nango_status_env(ngx_http_nango_status_t *st,
    ngx_http_nango_status_env_t *env)
{
    json_t                       *json;
    const ngx_http_nango_fact_t  *fact;

    json = json_pack("{s:o}",
                     "name", ngx_http_nango_json_string(
                                 ngx_nango_str(&env->name)));

    for (fact = ngx_http_nango_env_facts; json && fact->name; fact++) {

        if (ngx_http_nango_status_put(json, fact, env, st->open) != NGX_OK) {
            json_decref(json);
            return NULL;
        }
    }

    return json;
}


static json_t *
ngx_http_nango_status_sub(ngx_http_nango_status_sub_t *sub)
{
    json_t                       *json, *error;
    const ngx_http_nango_fact_t  *fact;

    error = json_null();

    if (sub->live.error != NGX_NANGO_DELIVERY_NONE) {
        error = json_string(ngx_http_nango_delivery_word(sub->live.error));
    }

    json = json_pack("{s:o, s:o, s:o}",
                     "environment", ngx_http_nango_json_string(
                                        ngx_nango_str(&sub->environment)),
                     "name", ngx_http_nango_json_string(
                                 ngx_nango_str(&sub->name)),
                     "last_error", error);

    for (fact = ngx_http_nango_sub_facts; json && fact->name; fact++) {

        if (ngx_http_nango_status_put(json, fact, sub, sub->known) != NGX_OK)
        {
            json_decref(json);
            return NULL;
        }
    }

    return json;
}
