/*
 * Copyright (C) nginx-nango authors
 *
 * What browsers see of a connection, and the pieces of JSON that answers are
 * made of.
 */

#include "ngx_http_nango_json.h"

#include "nango_utf8.h"


static ngx_int_t ngx_http_nango_json_tag(json_t *object,
    const nango_tag_t *tag);


json_t *
ngx_http_nango_connection_json(ngx_http_request_t *r,
    ngx_array_t *owners, nango_connection_t *c)
{
    size_t                      n;
    json_t                     *json, *error, *owner, *tags;
    ngx_uint_t                  i;
    nango_tag_t                *tag;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    owner = json_object();
    tag = owners->elts;

    for (i = 0; i < owners->nelts; i++) {
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


json_t *
ngx_http_nango_json_string(nango_str_t s)
{
    if (s.data == NULL || !nango_utf8_valid(s)) {
        return json_null();
    }

    return json_stringn_nocheck((char *) s.data, s.len);
}


json_t *
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


json_t *
ngx_http_nango_json_hex(const u_char *data, size_t len)
{
    u_char  hex[2 * NANGO_STORE_ID_LEN];

    nango_hex(hex, data, len);

    return json_stringn((char *) hex, 2 * len);
}


ngx_int_t
ngx_http_nango_json_text(ngx_http_request_t *r, json_t *json, ngx_str_t *text)
{
    /*
     * Twice, for its length first: jansson 2.14's json_dumps() does not notice
     * that there is no memory for a member's name.
     */

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
