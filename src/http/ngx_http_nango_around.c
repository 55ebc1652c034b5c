/*
 * Copyright (C) nginx-nango authors
 *
 * What other directives do in a location of ours, as far as it can be seen in
 * the configurations of nginx's own modules once these are merged.  Who asks
 * for it warns, and refuses nothing: what is done by another module cannot be
 * seen.
 *
 * Looked at is the beginning of such a configuration, which is 0, NULL or an
 * empty string where the module has nothing to do.
 */

#include "ngx_http_nango.h"


static void *ngx_http_nango_around(ngx_conf_t *cf, void **confs,
    const char *name);
static ngx_uint_t ngx_http_nango_returning(ngx_array_t *codes,
    ngx_uint_t always);


/* A module's, among the confs of a location; NULL: there is no such module. */

static void *
ngx_http_nango_around(ngx_conf_t *cf, void **confs, const char *name)
{
    ngx_uint_t      i;
    ngx_module_t  **modules;

    modules = cf->cycle->modules;

    for (i = 0; modules[i]; i++) {
        if (ngx_strcmp(modules[i]->name, name) == 0) {
            return confs[modules[i]->ctx_index];
        }
    }

    return NULL;
}


ngx_uint_t
ngx_http_nango_auth_basic(ngx_conf_t *cf)
{
    ngx_http_conf_ctx_t        *ctx;
    ngx_http_complex_value_t  **realm;

    ctx = cf->ctx;
    realm = ngx_http_nango_around(cf, ctx->loc_conf,
                                  "ngx_http_auth_basic_module");

    return realm && *realm
           && ((*realm)->value.len != 3
               || ngx_strncmp((*realm)->value.data, "off", 3) != 0);
}


ngx_uint_t
ngx_http_nango_auth_request(ngx_conf_t *cf)
{
    ngx_str_t            *uri;
    ngx_http_conf_ctx_t  *ctx;

    ctx = cf->ctx;
    uri = ngx_http_nango_around(cf, ctx->loc_conf,
                                "ngx_http_auth_request_module");

    return uri && uri->len;
}


ngx_uint_t
ngx_http_nango_guarded(ngx_conf_t *cf)
{
    void                     **rules;
    ngx_http_conf_ctx_t       *ctx;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->internal || ngx_http_nango_auth_basic(cf)
        || ngx_http_nango_auth_request(cf))
    {
        return 1;
    }

    ctx = cf->ctx;
    rules = ngx_http_nango_around(cf, ctx->loc_conf,
                                  "ngx_http_access_module");

    return rules && *rules;
}


ngx_uint_t
ngx_http_nango_returns(ngx_conf_t *cf, ngx_uint_t always)
{
    ngx_array_t               **codes;
    ngx_http_conf_ctx_t        *ctx;
    ngx_http_core_srv_conf_t   *cscf;

    static const char  name[] = "ngx_http_rewrite_module";

    ctx = cf->ctx;
    codes = ngx_http_nango_around(cf, ctx->loc_conf, name);

    if (codes && ngx_http_nango_returning(*codes, always)) {
        return 1;
    }

    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
    codes = ngx_http_nango_around(cf, cscf->ctx->loc_conf, name);

    return codes && ngx_http_nango_returning(*codes, 1);
}


/* A "return" is the address of a function among the codes; so is an "if". */

static ngx_uint_t
ngx_http_nango_returning(ngx_array_t *codes, ngx_uint_t always)
{
    u_char                   *p, *last;
    ngx_http_script_code_pt   code;

    if (codes == NULL) {
        return 0;
    }

    p = codes->elts;
    last = p + codes->nelts * codes->size;

    for ( /* void */ ; last - p >= (ssize_t) sizeof(code);
          p += sizeof(uintptr_t))
    {
        ngx_memcpy(&code, p, sizeof(code));

        if (code == ngx_http_script_return_code) {
            return 1;
        }

        if (always && code == ngx_http_script_if_code) {
            return 0;
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_nango_leads(ngx_conf_t *cf)
{
    ngx_http_conf_ctx_t       *ctx;
    ngx_http_upstream_conf_t  *ucf;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* The proxy module's configuration begins with that of its upstream. */

    ctx = cf->ctx;
    ucf = ngx_http_nango_around(cf, ctx->loc_conf, "ngx_http_proxy_module");

    return ucf && clcf->handler && !clcf->noname
           && !(ucf->ignore_headers & NGX_HTTP_UPSTREAM_IGN_XA_REDIRECT);
}
