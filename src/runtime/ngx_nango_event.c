/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_event.h.
 */

#include "ngx_nango_event.h"


ngx_nango_job_t *
ngx_nango_event_job(ngx_nango_environment_t *env, nango_source_e source,
    const nango_event_t *event)
{
    char             *body;
    size_t            len, size;
    u_char           *p, headers[sizeof("Content-Type: application/json\r\n"
                                        "X-Nango-Hmac-Sha256: \r\n")
                                 + 2 * NANGO_HMAC_LEN];
    nango_record_t    rec;
    ngx_nango_job_t  *job;

    ngx_memzero(&rec, sizeof(nango_record_t));

    body = nango_event_body(event, ngx_nango_str(&env->name), &len);
    if (body == NULL) {
        return NULL;
    }

    rec.source = source;
    rec.type = event->type;
    rec.operation = event->operation;
    rec.success = event->success;
    rec.received_at = ngx_nango_now();
    rec.environment = ngx_nango_str(&env->name);
    rec.type_name.data = (u_char *) nango_type_name(event->type);
    rec.type_name.len = ngx_strlen(rec.type_name.data);
    rec.integration = event->integration;
    rec.connection_id = event->connection_id;
    rec.body = nango_str(body, len);
    rec.body_len = len;

    p = ngx_cpymem(headers, "Content-Type: application/json\r\n",
                   sizeof("Content-Type: application/json\r\n") - 1);

    /* Without a key, an environment takes no webhooks that could be mixed. */

    if (env->signing_keys) {

        if (nango_sign(env->signing_keys, rec.body, rec.hmac) != 0) {
            free(body);
            return NULL;
        }

        p = ngx_cpymem(p, "X-Nango-Hmac-Sha256: ",
                       sizeof("X-Nango-Hmac-Sha256: ") - 1);

        nango_hex(p, rec.hmac, NANGO_HMAC_LEN);
        p += 2 * NANGO_HMAC_LEN;

        *p++ = CR;
        *p++ = LF;
    }

    rec.headers = nango_str(headers, p - headers);

    size = nango_record_size(&rec);
    job = size ? ngx_nango_job_create(size) : NULL;

    if (job) {
        nango_record_encode(&rec, job->record);

        job->write.received_at = rec.received_at;
        ngx_memcpy(job->write.environment, env->key, NANGO_KEY_LEN);
        ngx_memcpy(job->write.hmac, rec.hmac, NANGO_HMAC_LEN);
    }

    free(body);

    return job;
}
