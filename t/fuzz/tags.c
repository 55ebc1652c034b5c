/*
 * Copyright (C) nginx-nango authors
 *
 * The rules for tags and integration ids: a line with a name, then a value.
 * Beside them the same rules as regular expressions, as Nango's server has
 * them, and iconv() for what UTF-8 is.
 */


#include "fuzz.h"

#include "nango_tags.h"
#include "nango_utf8.h"

#include <iconv.h>
#include <regex.h>


typedef struct {
    const char           *pattern;
    regex_t               compiled;
    int                   ready;
} pattern_t;


static pattern_t  name_pattern = { .pattern = "^[A-Za-z][A-Za-z0-9_./-]*$" };
static pattern_t  id_pattern = { .pattern = "^[A-Za-z0-9~:.@ _-]+$" };
static pattern_t  email_pattern = {
    .pattern = "^[A-Za-z0-9_'+.-]*[A-Za-z0-9_+-]@"
               "([A-Za-z0-9][A-Za-z0-9-]*[.])+[A-Za-z][A-Za-z]+$"
};


static int
matches(pattern_t *p, nango_str_t s)
{
    int    rc;
    char  *text;

    if (!p->ready) {
        check(regcomp(&p->compiled, p->pattern, REG_EXTENDED|REG_NOSUB) == 0);
        p->ready = 1;
    }

    if (s.len == 0 || memchr(s.data, '\0', s.len) != NULL) {
        return 0;
    }

    text = malloc(s.len + 1);
    check(text != NULL);

    memcpy(text, s.data, s.len);
    text[s.len] = '\0';

    rc = regexec(&p->compiled, text, 0, NULL, 0);

    free(text);

    return rc == 0;
}


static int
has(nango_str_t s, const char *what)
{
    size_t  i, len;

    len = strlen(what);

    for (i = 0; i + len <= s.len; i++) {
        if (memcmp(s.data + i, what, len) == 0) {
            return 1;
        }
    }

    return 0;
}


/* -1: no UTF-8. */

static long
utf16_units(nango_str_t s)
{
    char            *in, *out, *buf;
    size_t           left, room, size;
    static iconv_t   cd;

    if (cd == NULL) {
        cd = iconv_open("UTF-16LE", "UTF-8");
        check(cd != (iconv_t) -1);
    }

    (void) iconv(cd, NULL, NULL, NULL, NULL);

    size = s.len * 2 + 2;
    buf = malloc(size);
    check(buf != NULL);

    in = (char *) s.data;
    left = s.len;
    out = buf;
    room = size;

    if (left && iconv(cd, &in, &left, &out, &room) == (size_t) -1) {
        free(buf);
        return -1;
    }

    free(buf);

    return (long) (size - room) / 2;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int          good, control;
    long         len;
    size_t       i;
    nango_str_t  in, name, value;
    const char  *error;

    in = nango_str(data, size);
    name = exact(take(&in, '\n'));
    value = exact(in);

    /* Names. */

    good = matches(&name_pattern, name) && name.len <= NANGO_TAG_NAME_MAX;
    error = nango_tag_name_error(name);

    check(good == (error == NULL));
    check(error == NULL || memcmp(error, "must ", 5) == 0);

    /* Values. */

    control = 0;

    for (i = 0; i < value.len; i++) {
        control = control || value.data[i] < 0x20 || value.data[i] == 0x7f;
    }

    len = utf16_units(value);

    check(nango_utf8_valid(value) == (len >= 0));
    check(nango_utf16_len(value) == (control ? -1 : len));

    good = !control && len >= 1 && len <= NANGO_TAG_VALUE_MAX;
    error = nango_tag_value_error(S("other"), value);

    check(good == (error == NULL));
    check(error == NULL || memcmp(error, "must ", 5) == 0);
    check(!good || value.len <= NANGO_TAG_VALUE_BYTES);

    check((nango_tag_value_error(name, value) == NULL) == good
          || nango_str_is(name, "end_user_email"));

    good = good && matches(&email_pattern, value)
           && value.data[0] != '.' && !has(value, "..");

    check((nango_tag_value_error(S("end_user_email"), value) == NULL) == good);

    /* Integrations. */

    good = matches(&id_pattern, value) && value.len <= 255;

    check(nango_integration_valid(value) == good);

    exact_free(name);
    exact_free(value);

    return 0;
}
