/*
 * Faults on purpose.  Each is one that a sanitizer or valgrind has to report;
 * t/sanitize/run looks whether it does, with the same builds, options and
 * scripts as for the module itself.
 *
 *     location = /fault { planted NAME; }
 *
 * The fault happens at a request, "configuration" when the directive is read.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <pthread.h>


typedef struct {
    ngx_str_t           name;
    void              (*happen)(ngx_http_request_t *r);
} ngx_http_planted_fault_t;


typedef struct {
    ngx_http_planted_fault_t  *fault;
} ngx_http_planted_loc_conf_t;


static void *ngx_http_planted_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_planted(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_planted_handler(ngx_http_request_t *r);

static void ngx_http_planted_overflow(ngx_http_request_t *r);
static void ngx_http_planted_after_free(ngx_http_request_t *r);
static void ngx_http_planted_leak(ngx_http_request_t *r);
static void ngx_http_planted_shift(ngx_http_request_t *r);
static void ngx_http_planted_alignment(ngx_http_request_t *r);
static void ngx_http_planted_race(ngx_http_request_t *r);
static void ngx_http_planted_uninitialised(ngx_http_request_t *r);
static void ngx_http_planted_descriptor(ngx_http_request_t *r);


static ngx_http_planted_fault_t  ngx_http_planted_faults[] = {
    { ngx_string("overflow"), ngx_http_planted_overflow },
    { ngx_string("after_free"), ngx_http_planted_after_free },
    { ngx_string("leak"), ngx_http_planted_leak },
    { ngx_string("configuration"), NULL },
    { ngx_string("shift"), ngx_http_planted_shift },
    { ngx_string("alignment"), ngx_http_planted_alignment },
    { ngx_string("race"), ngx_http_planted_race },
    { ngx_string("uninitialised"), ngx_http_planted_uninitialised },
    { ngx_string("descriptor"), ngx_http_planted_descriptor },
    { ngx_null_string, NULL }
};


static ngx_command_t  ngx_http_planted_commands[] = {

    { ngx_string("planted"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_planted,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_planted_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_planted_create_loc_conf,      /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_planted_module = {
    NGX_MODULE_V1,
    &ngx_http_planted_module_ctx,          /* module context */
    ngx_http_planted_commands,             /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* No compiler foresees what comes of these. */

static void * volatile      ngx_http_planted_sink;
static volatile ngx_uint_t  ngx_http_planted_number = 31;
static ngx_uint_t           ngx_http_planted_shared;


static void *
ngx_http_planted_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_planted_loc_conf_t));
}


static char *
ngx_http_planted(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_planted_loc_conf_t *plcf = conf;

    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_planted_fault_t  *fault;

    value = cf->args->elts;

    for (fault = ngx_http_planted_faults; fault->name.len; fault++) {

        if (fault->name.len != value[1].len
            || ngx_strncmp(fault->name.data, value[1].data, value[1].len) != 0)
        {
            continue;
        }

        plcf->fault = fault;

        if (fault->happen == NULL) {
            ngx_http_planted_leak(NULL);
        }

        clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
        clcf->handler = ngx_http_planted_handler;

        return NGX_CONF_OK;
    }

    return "has an unknown name";
}


static ngx_int_t
ngx_http_planted_handler(ngx_http_request_t *r)
{
    ngx_http_planted_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_planted_module);

    if (plcf->fault->happen) {
        plcf->fault->happen(r);
    }

    return NGX_HTTP_NO_CONTENT;
}


static void
ngx_http_planted_overflow(ngx_http_request_t *r)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, ngx_http_planted_number);

    if (p) {
        p[ngx_http_planted_number] = 'x';
        ngx_http_planted_sink = p;
    }
}


static void
ngx_http_planted_after_free(ngx_http_request_t *r)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, ngx_pagesize);

    if (p) {
        ngx_http_planted_sink = p;
        (void) ngx_pfree(r->pool, p);
        p[ngx_http_planted_number] = 'x';
    }
}


static void
ngx_http_planted_leak(ngx_http_request_t *r)
{
    ngx_http_planted_sink = malloc(ngx_http_planted_number);
    ngx_http_planted_sink = NULL;
}


static void
ngx_http_planted_shift(ngx_http_request_t *r)
{
    int  one;

    one = ngx_http_planted_number == 31;
    ngx_http_planted_number = one << (ngx_http_planted_number + 1);
}


static void
ngx_http_planted_alignment(ngx_http_request_t *r)
{
    u_char  *p;

    p = ngx_palloc(r->pool, 2 * sizeof(uint64_t));

    if (p) {
        p += ngx_http_planted_number == 31;
        *(uint64_t *) p = ngx_http_planted_number;
        ngx_http_planted_sink = p;
    }
}


static void *
ngx_http_planted_racer(void *data)
{
    ngx_uint_t  i;

    for (i = 0; i < 1000; i++) {
        ngx_http_planted_shared++;
    }

    return NULL;
}


static void
ngx_http_planted_race(ngx_http_request_t *r)
{
    pthread_t  thread;

    if (pthread_create(&thread, NULL, ngx_http_planted_racer, NULL) == 0) {
        (void) ngx_http_planted_racer(NULL);
        (void) pthread_join(thread, NULL);
    }
}


static void
ngx_http_planted_uninitialised(ngx_http_request_t *r)
{
    ngx_uint_t  *p;

    p = ngx_palloc(r->pool, sizeof(ngx_uint_t));

    if (p && *p == 42) {
        ngx_http_planted_number = 42;
    }
}


static void
ngx_http_planted_descriptor(ngx_http_request_t *r)
{
    (void) ngx_open_file((u_char *) "/dev/null", NGX_FILE_RDONLY,
                         NGX_FILE_OPEN, 0);
}
