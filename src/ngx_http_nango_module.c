/*
 * Copyright (C) nginx-nango authors
 *
 * The table of directives, the making and merging of configurations, and the
 * start and end of a worker.  What a directive does is in the file of its
 * name in src/http.
 */

#include "ngx_http_nango.h"
#include "ngx_nango_credential.h"
#include "ngx_nango_curl.h"
#include "ngx_nango_deliver.h"
#include "ngx_nango_reconcile.h"
#include "ngx_nango_removed.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_store.h"


static void *ngx_http_nango_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_nango_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_nango_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_nango_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_nango_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_nango_init_process(ngx_cycle_t *cycle);
static void ngx_http_nango_exit_process(ngx_cycle_t *cycle);


static ngx_conf_bitmask_t  ngx_http_nango_expose_mask[] = {
    { ngx_string("connection_id"), NGX_HTTP_NANGO_EXPOSE_CONNECTION_ID },
    { ngx_string("tags"), NGX_HTTP_NANGO_EXPOSE_TAGS },
    { ngx_null_string, 0 }
};


#define NGX_HTTP_NANGO_ALL_CONF                                              \
    (NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF)

#define NGX_HTTP_NANGO_CONTENT_CONF                                          \
    (NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF)


static ngx_command_t  ngx_http_nango_commands[] = {

    { ngx_string("nango_store"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE123,
      ngx_http_nango_store_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_environment"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_nango_environment,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_owner"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_TAKE2,
      ngx_http_nango_owner,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_tag"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_TAKE2,
      ngx_http_nango_tag,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_integrations"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_1MORE,
      ngx_http_nango_integrations_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_integration_default"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_TAKE3,
      ngx_http_nango_integration_default,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_integration_docs"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_TAKE2,
      ngx_http_nango_integration_docs,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_webhook_url"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_TAKE1,
      ngx_http_nango_webhook_url,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_allow_origin"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_1MORE,
      ngx_http_nango_allow_origin,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_permit"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_1MORE,
      ngx_http_nango_permit,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_session_limit"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_TAKE12,
      ngx_http_nango_session_limit,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_expose"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_1MORE,
      ngx_conf_set_bitmask_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_nango_loc_conf_t, expose),
      &ngx_http_nango_expose_mask },

    { ngx_string("nango_session_reuse"),
      NGX_HTTP_NANGO_ALL_CONF|NGX_CONF_TAKE1,
      ngx_http_nango_session_reuse,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_session"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_nango_session,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_reconnect"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_nango_reconnect,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_catalog"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_nango_catalog,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_require"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_CONF_1MORE,
      ngx_http_nango_require,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_connections"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_nango_connections,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_events"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE12,
      ngx_http_nango_events,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_webhook"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE12,
      ngx_http_nango_webhook,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_oauth_callback"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_nango_oauth_callback,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("nango_status"),
      NGX_HTTP_NANGO_CONTENT_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_nango_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_nango_module_ctx = {
    ngx_http_nango_add_variables,          /* preconfiguration */
    ngx_http_nango_init,                   /* postconfiguration */

    ngx_http_nango_create_main_conf,       /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_nango_create_loc_conf,        /* create location configuration */
    ngx_http_nango_merge_loc_conf          /* merge location configuration */
};


ngx_module_t  ngx_http_nango_module = {
    NGX_MODULE_V1,
    &ngx_http_nango_module_ctx,            /* module context */
    ngx_http_nango_commands,               /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_nango_init_module,            /* init module */
    ngx_http_nango_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_nango_exit_process,           /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_nango_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_nango_main_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_nango_main_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&conf->environments, cf->pool, 2,
                       sizeof(ngx_nango_environment_t *))
        != NGX_OK
        || ngx_array_init(&conf->subscribers, cf->pool, 4,
                          sizeof(ngx_nango_subscriber_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return conf;
}


static void *
ngx_http_nango_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_nango_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_nango_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->endpoint = { 0 };
     *     conf->tags = NULL;
     *     conf->expose = 0;
     */

    conf->owners = NGX_CONF_UNSET_PTR;
    conf->integrations = NGX_CONF_UNSET_PTR;
    conf->origins = NGX_CONF_UNSET_PTR;
    conf->permits = NGX_CONF_UNSET_PTR;
    conf->defaults = NGX_CONF_UNSET_PTR;
    conf->docs = NGX_CONF_UNSET_PTR;
    conf->webhook_url = NGX_CONF_UNSET_PTR;
    conf->require = NGX_CONF_UNSET_PTR;
    conf->limit_interval = NGX_CONF_UNSET_MSEC;
    conf->limit_burst = NGX_CONF_UNSET_UINT;
    conf->session_reuse = NGX_CONF_UNSET;

    return conf;
}


static char *
ngx_http_nango_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_nango_loc_conf_t *prev = parent;
    ngx_http_nango_loc_conf_t *conf = child;

    char  *rv;

    ngx_conf_merge_ptr_value(conf->owners, prev->owners, NULL);
    ngx_conf_merge_ptr_value(conf->integrations, prev->integrations, NULL);
    ngx_conf_merge_ptr_value(conf->origins, prev->origins, NULL);
    ngx_conf_merge_ptr_value(conf->permits, prev->permits, NULL);
    ngx_conf_merge_ptr_value(conf->defaults, prev->defaults, NULL);
    ngx_conf_merge_ptr_value(conf->docs, prev->docs, NULL);
    ngx_conf_merge_ptr_value(conf->webhook_url, prev->webhook_url, NULL);
    ngx_http_nango_session_limit_merge(prev, conf);

    ngx_conf_merge_bitmask_value(conf->expose, prev->expose,
                                 NGX_CONF_BITMASK_SET);
    ngx_conf_merge_value(conf->session_reuse, prev->session_reuse, 30);

    rv = ngx_http_nango_tags_merge(cf, prev, conf);

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_nango_endpoint_merge(cf, prev, conf);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_nango_require_merge(cf, prev, conf);
    }

    if (rv == NGX_CONF_OK) {
        conf->browser = (conf->endpoint.browser
                         || ngx_http_nango_require_proxies(conf));
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_nango_events_merge(cf, prev, conf);
    }

    if (rv == NGX_CONF_OK) {
        rv = ngx_http_nango_webhook_merge(cf, conf);
    }

    return rv;
}


static ngx_int_t
ngx_http_nango_init(ngx_conf_t *cf)
{
    ngx_uint_t                   i;
    ngx_http_phases              phase;
    ngx_http_handler_pt         *h;
    ngx_http_core_main_conf_t   *cmcf;
    ngx_http_nango_main_conf_t  *nmcf;

    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);

    if (nmcf->environments.nelts == 0 && nmcf->store.path.len == 0
        && nmcf->statuses == 0)
    {
        return NGX_OK;
    }

    if (ngx_http_nango_deliver_init(cf) != NGX_CONF_OK) {
        return NGX_ERROR;
    }

    if (ngx_nango_shared_add(cf, &ngx_http_nango_module) != NGX_OK) {
        return NGX_ERROR;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    for (i = 0; nmcf->proxies && i < 2; i++) {
        phase = i ? NGX_HTTP_REWRITE_PHASE : NGX_HTTP_SERVER_REWRITE_PHASE;

        h = ngx_array_push(&cmcf->phases[phase].handlers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        *h = ngx_http_nango_proxy_handler;
    }

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_nango_origin_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_nango_require_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_nango_webhook_log_handler;

    ngx_http_nango_webhook_init();
    ngx_http_nango_origin_init();

    return NGX_OK;
}


static ngx_http_nango_main_conf_t *
ngx_http_nango_cycle_conf(ngx_cycle_t *cycle)
{
    if (cycle->conf_ctx[ngx_http_module.index] == NULL) {
        return NULL;
    }

    return ngx_http_cycle_get_module_main_conf(cycle, ngx_http_nango_module);
}


static ngx_int_t
ngx_http_nango_init_module(ngx_cycle_t *cycle)
{
    ngx_http_nango_main_conf_t  *nmcf;

    nmcf = ngx_http_nango_cycle_conf(cycle);

    if (ngx_test_config || nmcf == NULL) {
        return NGX_OK;
    }

    ngx_nango_generation_begin();

    if (nmcf->store.path.len == 0) {
        return NGX_OK;
    }

    return ngx_nango_store_share(cycle);
}


/*
 * NGX_ERROR from here would leave nginx without a worker, for all its sites.
 * Whatever is wrong with the store or with libcurl is answered 503 here alone.
 */

static ngx_int_t
ngx_http_nango_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i, n, m;
    ngx_msec_t                    remember;
    ngx_nango_subscriber_t      **sub;
    ngx_nango_environment_t     **env;
    ngx_http_nango_main_conf_t   *nmcf;

    nmcf = ngx_http_nango_cycle_conf(cycle);

    if (nmcf == NULL
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    env = nmcf->environments.elts;
    n = nmcf->environments.nelts;

    sub = nmcf->subscribers.elts;
    m = nmcf->subscribers.nelts;

    if (ngx_nango_deliver_init(cycle, sub, m) != NGX_OK) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, 0,
                      "nango: deliveries could not be started in this worker");
        m = 0;
    }

    if (ngx_nango_curl_init(cycle, env, n, sub, m) != NGX_OK) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, 0,
                      "nango: libcurl could not be initialised; nothing can "
                      "be asked of Nango");
    }

    if (ngx_http_nango_catalog_init(env, n) != NGX_OK) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, 0, "nango: no memory");
    }

    if (nmcf->store.path.len == 0) {
        return NGX_OK;
    }

    remember = 0;

    for (i = 0; i < n; i++) {
        remember = ngx_max(remember, env[i]->dedupe);
    }

    if (ngx_nango_store_init(cycle, &nmcf->store, remember) != NGX_OK) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, 0,
                      "nango: the store could not be started in this worker");
        return NGX_OK;
    }

    if (ngx_nango_reconcile_init(cycle, env, n) != NGX_OK) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, 0, "nango: no memory");
    }

    ngx_nango_removed_init(cycle, nmcf->subscribers.elts,
                           nmcf->subscribers.nelts);

    return NGX_OK;
}


static void
ngx_http_nango_exit_process(ngx_cycle_t *cycle)
{
    ngx_nango_removed_exit();
    ngx_nango_reconcile_exit();
    ngx_nango_deliver_stop();
    ngx_nango_store_exit(cycle);
    ngx_nango_credential_exit();
    ngx_http_nango_catalog_exit();
    ngx_nango_curl_exit();
    ngx_nango_deliver_exit();
}
