/*
 * Copyright (C) nginx-nango authors
 *
 * What the directives share: their configuration, a request's context, and how
 * an endpoint answers.
 */

#ifndef _NGX_HTTP_NANGO_H_INCLUDED_
#define _NGX_HTTP_NANGO_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_nango.h"
#include "nango_event.h"
#include "nango_tags.h"


/* A tag whose value is worked out for each request. */
typedef struct {
    ngx_str_t                  name;        /* lower case */
    ngx_http_complex_value_t   value;

    /*
     * Each variable of the value alone: "user-$id" is not empty, and yet
     * nobody's, when $id is.
     */
    ngx_array_t               *variables;   /* ngx_http_complex_value_t */

    unsigned                   remote_user:1;
} ngx_http_nango_tag_t;


/* A content directive. */
typedef struct {
    ngx_http_handler_pt        handler;     /* NULL: none here */
    ngx_str_t                  name;        /* of the directive */
    ngx_str_t                  environment_name;
    ngx_nango_environment_t   *environment;
    ngx_str_t                  methods;     /* that it takes; empty: any */
    size_t                     max_body;

    unsigned                   browser:1;   /* has an owner and an origin */
    unsigned                   signing:1;   /* needs a signing key */
    unsigned                   api:1;       /* needs an API key */
    unsigned                   store:1;
    unsigned                   all:1;       /* whose it is does not matter */
    unsigned                   everywhere:1;    /* not of one environment */
    unsigned                   manage:1;    /* POST acts for an operator */
    unsigned                   strangers:1;     /* who asks cannot log in */
    unsigned                   session:1;   /* of owners and tags alone */

    ngx_str_t                  file;
    ngx_uint_t                 line;
} ngx_http_nango_endpoint_t;


typedef struct ngx_http_nango_require_s  ngx_http_nango_require_t;


/* The lowest bit of a mask is nginx's own NGX_CONF_BITMASK_SET. */
#define NGX_HTTP_NANGO_EXPOSE_CONNECTION_ID  0x0002
#define NGX_HTTP_NANGO_EXPOSE_TAGS           0x0004


/* For nango_permit. */
#define NGX_HTTP_NANGO_CONNECT               0x0001
#define NGX_HTTP_NANGO_RECONNECT             0x0002
#define NGX_HTTP_NANGO_VERIFY                0x0004
#define NGX_HTTP_NANGO_DELETE                0x0008


typedef struct {
    ngx_nango_store_conf_t     store;       /* path.len == 0: none */
    ngx_path_t                *temp_path;
    ngx_array_t                environments;  /* ngx_nango_environment_t * */
    ngx_array_t                subscribers;   /* ngx_nango_subscriber_t * */
    ngx_uint_t                 webhooks;    /* locations that take them */
    ngx_uint_t                 proxies;     /* nango_require ... proxy */
    ngx_uint_t                 statuses;    /* locations of nango_status */
} ngx_http_nango_main_conf_t;


typedef struct {
    ngx_http_nango_endpoint_t  endpoint;
    ngx_array_t               *owners;      /* ngx_http_nango_tag_t */
    ngx_array_t               *tags;        /* ngx_http_nango_tag_t */
    ngx_array_t               *integrations;  /* ngx_http_complex_value_t */
    ngx_array_t               *origins;     /* NULL: only its own */
    ngx_array_t               *permits;     /* NULL: everything */
    ngx_array_t               *defaults;
    ngx_array_t               *docs;
    ngx_http_complex_value_t  *webhook_url;
    ngx_http_nango_require_t  *require;     /* NULL: nothing */
    ngx_msec_t                 limit_interval;  /* 0: no limit */
    ngx_uint_t                 limit_burst;
    unsigned                   browser:1;   /* pages ask with their cookies */
    ngx_uint_t                 expose;
    time_t                     session_reuse;
} ngx_http_nango_loc_conf_t;


/*
 * The body of a request, as it came or empty.  Returns what is for
 * ngx_http_finalize_request(), or NGX_AGAIN: the answer comes later.
 */
typedef ngx_int_t (*ngx_http_nango_read_pt)(ngx_http_request_t *r,
    nango_str_t body);


/* What the log variables tell.  Zero: nothing to tell. */
typedef struct {
    ngx_str_t                  result;
    nango_type_e               type;
    nango_op_e                 operation;
    ngx_str_t                  event_type;
    uint64_t                   sequence;
    ngx_uint_t                 api_status;
    ngx_msec_t                 api_time;
    uint64_t                   commit_time;     /* us */

    unsigned                   event:1;
    unsigned                   api:1;
    unsigned                   commit:1;
    unsigned                   answered:1;
    unsigned                   insist:1;    /* also if the client leaves */

    ngx_http_nango_read_pt     read;
    void                      *state;           /* the endpoint's own */
    void                      *required;        /* see _require.h */
} ngx_http_nango_ctx_t;


extern ngx_module_t  ngx_http_nango_module;


/* NULL if there is no memory. */
ngx_http_nango_ctx_t *ngx_http_nango_ctx(ngx_http_request_t *r);


/*
 * Answers.  The whole answer is written here, so that error_page never makes
 * something else of it, and the return code is for ngx_http_finalize_request()
 * alone.  What the client has sent and nobody read is discarded.  A body is
 * JSON, or of the type given, and UTF-8.
 *
 * body must live as long as the request (its pool, or static).
 * ngx_http_nango_error(): code and message are static; message is shown to the
 * client, so it says nothing of the inside.
 */
ngx_int_t ngx_http_nango_answer(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *body);
ngx_int_t ngx_http_nango_answer_as(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, ngx_str_t *body);
ngx_int_t ngx_http_nango_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message);
ngx_int_t ngx_http_nango_error_body(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, ngx_str_t *body);
ngx_int_t ngx_http_nango_not_allowed(ngx_http_request_t *r);
ngx_int_t ngx_http_nango_rate_limited(ngx_http_request_t *r, time_t seconds);
ngx_int_t ngx_http_nango_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);

/*
 * An answer of another kind.  type: NULL, none; but for the raw one it is text
 * in UTF-8.  len: -1, not known.  NGX_OK: the header is sent, now for the
 * body; NGX_DONE: there is none; else what to return.
 */
extern ngx_str_t  ngx_http_nango_type_raw;

ngx_int_t ngx_http_nango_answer_begin(ngx_http_request_t *r,
    ngx_uint_t status, ngx_str_t *type, off_t len);
ngx_int_t ngx_http_nango_answer_end(ngx_http_request_t *r, ngx_buf_t *b);

/* The first of a request's headers of that name, other than but; or NULL. */
ngx_table_elt_t *ngx_http_nango_find_header(ngx_http_request_t *r,
    const char *name, size_t len, ngx_table_elt_t *but);

/* No memory is a 500 as long as no header has been sent, and not a reset. */
ngx_int_t ngx_http_nango_rc(ngx_http_request_t *r, ngx_int_t rc);

/* Finalizes with what one of the above returned, from a foreign event. */
void ngx_http_nango_finish(ngx_http_request_t *r, ngx_int_t rc);

/*
 * For a handler that will answer later: the request is kept, and ends if the
 * client leaves, unless its context says that it insists.
 */
void ngx_http_nango_hold(ngx_http_request_t *r);

/* The same from a content handler, and what that returns: NGX_DONE. */
ngx_int_t ngx_http_nango_held(ngx_http_request_t *r);

/*
 * Reads a body of a few kilobytes, which is nothing or JSON, and calls handler
 * with it.  Larger ones and other types are answered 413 and 415.  Returns
 * what a content handler returns.
 */
ngx_int_t ngx_http_nango_read(ngx_http_request_t *r,
    ngx_http_nango_read_pt handler);


/* Owner, tags, integrations of a request, in its pool. */

/*
 * NGX_OK: *tags (nango_tag_t) holds the owners, each valid; NGX_DECLINED: a
 * variable is empty or a value is none that Nango takes, and the request has
 * been answered with *rc.
 */
ngx_int_t ngx_http_nango_owners(ngx_http_request_t *r, ngx_array_t *tags,
    ngx_int_t *rc);

/*
 * The same without an answer.  NGX_DECLINED: a variable is empty; NGX_ABORT: a
 * value is none that Nango takes; NGX_ERROR.
 */
ngx_int_t ngx_http_nango_owners_known(ngx_http_request_t *r,
    ngx_array_t *tags);

/* Appends nango_tag's that have a value. */
ngx_int_t ngx_http_nango_tags(ngx_http_request_t *r, ngx_array_t *tags);

/* *ids (nango_str_t) of nango_integrations, empty ones left out. */
ngx_int_t ngx_http_nango_integrations(ngx_http_request_t *r, ngx_array_t *ids);

/*
 * Adds what nango_integration_default, nango_integration_docs and
 * nango_webhook_url say, for the integrations that the session is for.
 */
ngx_int_t ngx_http_nango_session_extras(ngx_http_request_t *r,
    nango_session_t *session);

/*
 * Both: NGX_OK, or NGX_DECLINED and the request has been answered with *rc.
 * ngx_http_nango_limited() counts the owner's request.
 */
ngx_int_t ngx_http_nango_permitted(ngx_http_request_t *r, ngx_uint_t action,
    ngx_int_t *rc);
ngx_int_t ngx_http_nango_limited(ngx_http_request_t *r,
    ngx_nango_environment_t *env, nango_tag_t *owners, ngx_uint_t n,
    ngx_int_t *rc);

/* For methods that ask Nango where others of the location do not; as above. */
ngx_int_t ngx_http_nango_api_needed(ngx_http_request_t *r, ngx_int_t *rc);

/*
 * A token for the session, whose first nowners tags are its owners: from
 * those still fresh, or from Nango.  The session's memory is needed no longer
 * when it returns.  NGX_AGAIN, or what an answer returned.
 */
ngx_int_t ngx_http_nango_issue(ngx_http_request_t *r,
    nango_session_t *session, ngx_uint_t nowners);


/* Configuration. */

/* libcurl takes a time for an int of milliseconds: 24 days and some hours. */
#define NGX_HTTP_NANGO_MSEC_MAX  (24 * 24 * 60 * 60 * 1000)

char *ngx_http_nango_endpoint(ngx_conf_t *cf,
    ngx_http_nango_loc_conf_t *nlcf, ngx_http_handler_pt handler);
ngx_nango_environment_t *ngx_http_nango_find_environment(ngx_conf_t *cf,
    ngx_str_t *name, ngx_str_t *directive, ngx_str_t *file, ngx_uint_t line);
char *ngx_http_nango_endpoint_merge(ngx_conf_t *cf,
    ngx_http_nango_loc_conf_t *prev, ngx_http_nango_loc_conf_t *conf);
void ngx_http_nango_conf_error(ngx_uint_t level, ngx_conf_t *cf,
    ngx_str_t *file, ngx_uint_t line, const char *fmt, ...);

/*
 * What else there is in the location that is being merged: a check of access
 * or "internal"; a "return", there or in its server, and if always one that
 * stands before any "if".  The server's is asked for always.
 */
ngx_uint_t ngx_http_nango_auth_basic(ngx_conf_t *cf);
ngx_uint_t ngx_http_nango_auth_request(ngx_conf_t *cf);
ngx_uint_t ngx_http_nango_guarded(ngx_conf_t *cf);
ngx_uint_t ngx_http_nango_returns(ngx_conf_t *cf, ngx_uint_t always);

/*
 * Whether X-Accel-Redirect is followed where proxy_pass is: what is at the
 * other end of a connection may be its owner's own.
 */
ngx_uint_t ngx_http_nango_leads(ngx_conf_t *cf);

/*
 * What has a name of its own: 1 to 64 letters, digits, "_", "-" and ".", since
 * it is part of what is on disk, of headers and of metrics' labels.
 */
char *ngx_http_nango_conf_name(ngx_conf_t *cf, ngx_str_t *name,
    const char *what);

/*
 * Makes the path of CA certificates a whole one, and looks whether there are
 * any; libcurl reads them.
 */
char *ngx_http_nango_conf_certificate(ngx_conf_t *cf, ngx_str_t *path);

/*
 * NULL, or what is wrong with the host and the port of a URL, which are at p,
 * behind the scheme: "has an invalid port".
 */
const char *ngx_http_nango_url_wrong(u_char *p, u_char *last);

/*
 * Of a URL that has been checked: its host, without the port and with the
 * brackets of an IPv6 address; and whether that is reached from inside only:
 * loopback, the private ranges, names without a dot or for inside.
 */
void ngx_http_nango_url_host(ngx_str_t *url, ngx_str_t *host);
ngx_uint_t ngx_http_nango_private(ngx_str_t *url);

/* cv is zeroed first.  NGX_OK, NGX_ERROR after logging. */
ngx_int_t ngx_http_nango_compile(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t *cv);

char *ngx_http_nango_store_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_environment(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_deliver(ngx_conf_t *cf, ngx_nango_environment_t *env);
char *ngx_http_nango_deliver_init(ngx_conf_t *cf);
char *ngx_http_nango_owner(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_http_nango_owners_check(ngx_conf_t *cf, ngx_array_t *owners,
    ngx_str_t *directive, ngx_str_t *file, ngx_uint_t line);
char *ngx_http_nango_tag(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_nango_tags_merge(ngx_conf_t *cf,
    ngx_http_nango_loc_conf_t *prev, ngx_http_nango_loc_conf_t *conf);
char *ngx_http_nango_integrations_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_nango_allow_origin(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_permit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_nango_integration_default(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_integration_docs(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_webhook_url(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_session_limit(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
void ngx_http_nango_session_limit_merge(ngx_http_nango_loc_conf_t *prev,
    ngx_http_nango_loc_conf_t *conf);
char *ngx_http_nango_session_reuse(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_session(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_nango_reconnect(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_require(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_nango_require_merge(ngx_conf_t *cf,
    ngx_http_nango_loc_conf_t *prev, ngx_http_nango_loc_conf_t *conf);
ngx_uint_t ngx_http_nango_require_proxies(ngx_http_nango_loc_conf_t *conf);
char *ngx_http_nango_catalog(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_nango_catalog_init(ngx_nango_environment_t **environments,
    ngx_uint_t n);
void ngx_http_nango_catalog_exit(void);
char *ngx_http_nango_connections(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_events(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_nango_events_merge(ngx_conf_t *cf,
    ngx_http_nango_loc_conf_t *prev, ngx_http_nango_loc_conf_t *conf);
char *ngx_http_nango_webhook(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_nango_webhook_merge(ngx_conf_t *cf,
    ngx_http_nango_loc_conf_t *conf);
char *ngx_http_nango_oauth_callback(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_nango_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

void ngx_http_nango_origin_init(void);
ngx_int_t ngx_http_nango_origin_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_nango_require_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_nango_proxy_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_nango_webhook_log_handler(ngx_http_request_t *r);
void ngx_http_nango_webhook_init(void);
ngx_int_t ngx_http_nango_add_variables(ngx_conf_t *cf);


#endif /* _NGX_HTTP_NANGO_H_INCLUDED_ */
