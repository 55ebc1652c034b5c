/*
 * Copyright (C) nginx-nango authors
 *
 * nango_owner tag value;
 *
 * Who is asking.  All owners of a location must match a connection and all of
 * them are sent with a session, so this decides who reaches which connection.
 * Hence it is strict: a value in which any variable is empty is nobody's, and
 * what a client can write into its own request is refused by nginx -t.
 */

#include "ngx_http_nango.h"
#include "ngx_http_nango_tag.h"


char *
ngx_http_nango_owner(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    if (nlcf->owners == NGX_CONF_UNSET_PTR) {
        nlcf->owners = ngx_array_create(cf->pool, 2,
                                        sizeof(ngx_http_nango_tag_t));
        if (nlcf->owners == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_nango_tag_add(cf, nlcf->owners, 1);
}


/*
 * nginx takes $remote_user from the Authorization header, whether or not
 * anybody has looked at the password.
 */

void
ngx_http_nango_owners_check(ngx_conf_t *cf, ngx_array_t *owners,
    ngx_str_t *directive, ngx_str_t *file, ngx_uint_t line)
{
    ngx_uint_t             i;
    ngx_http_nango_tag_t  *owner;

    owner = owners->elts;

    for (i = 0; i < owners->nelts; i++) {
        if (owner[i].remote_user) {
            break;
        }
    }

    if (i == owners->nelts || ngx_http_nango_auth_basic(cf)) {
        return;
    }

    ngx_http_nango_conf_error(NGX_LOG_WARN, cf, file, line,
                   "\"$remote_user\" in nango_owner is what the client claims "
                   "to be: there is no auth_basic here for \"%V\"",
                   directive);
}


ngx_int_t
ngx_http_nango_owners(ngx_http_request_t *r, ngx_array_t *tags, ngx_int_t *rc)
{
    switch (ngx_http_nango_owners_known(r, tags)) {

    case NGX_OK:
        return NGX_OK;

    case NGX_DECLINED:
        *rc = ngx_http_nango_error(r, NGX_HTTP_UNAUTHORIZED, "owner_required",
                                   "It is not known who is asking");
        return NGX_DECLINED;

    case NGX_ABORT:
        *rc = ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_tag",
                                   "The caller's identity cannot be used "
                                   "as a tag");
        return NGX_DECLINED;

    default: /* NGX_ERROR */
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }
}


ngx_int_t
ngx_http_nango_owners_known(ngx_http_request_t *r, ngx_array_t *tags)
{
    ngx_str_t                   s;
    ngx_uint_t                  i, n;
    const char                 *error;
    nango_tag_t                *tag;
    ngx_http_nango_tag_t       *owner;
    ngx_http_complex_value_t   *cv;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    owner = nlcf->owners->elts;

    for (i = 0; i < nlcf->owners->nelts; i++) {

        cv = owner[i].variables->elts;

        for (n = 0; n < owner[i].variables->nelts; n++) {

            if (ngx_http_complex_value(r, &cv[n], &s) != NGX_OK) {
                return NGX_ERROR;
            }

            if (s.len == 0) {
                goto nobody;
            }
        }

        if (ngx_http_complex_value(r, &owner[i].value, &s) != NGX_OK) {
            return NGX_ERROR;
        }

        if (s.len == 0) {
            goto nobody;
        }

        tag = ngx_array_push(tags);
        if (tag == NULL) {
            return NGX_ERROR;
        }

        tag->name = ngx_nango_str(&owner[i].name);
        tag->value = ngx_nango_str(&s);

        error = nango_tag_value_error(tag->name, tag->value);

        if (error) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "the value of nango_owner \"%V\" is none that Nango "
                          "takes: it %s", &owner[i].name, error);
            return NGX_ABORT;
        }
    }

    return NGX_OK;

nobody:

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "nango_owner \"%V\" is empty: nobody was authenticated",
                  &owner[i].name);

    return NGX_DECLINED;
}
