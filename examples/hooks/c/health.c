// A health check for Redis: sends PING and expects PONG. The port is `port` of the group's [config].

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/hook.h"

typedef exports_tagfall_hooks_health_check_report_t report_t;
typedef exports_tagfall_hooks_health_check_failure_t failure_t;

// The bindings expect the world's type from an object file; `build` adds it with `jco embed` instead.
void __component_type_object_force_link_hook(void) {}

// The answer's text is copied: the bindings free what they are given back.
static bool report(report_t *out, tagfall_hooks_types_health_t health, const char *message) {
    memset(out, 0, sizeof *out);
    out->health = health;
    hook_string_dup(&out->message, message);
    return true;
}

// A failure counts as `unknown`: the check could not do its work.
static bool fail(failure_t *out, const char *code, const char *message) {
    memset(out, 0, sizeof *out);
    hook_string_dup(&out->code, code);
    hook_string_dup(&out->message, message);
    return false;
}

// A number of the configuration by its JSON pointer, or 0.
static uint16_t port_at(const char *pointer) {
    hook_string_t path, value;
    hook_string_set(&path, pointer);
    if (!tagfall_hooks_config_get(&path, &value)) return 0;
    char text[8] = {0};
    memcpy(text, value.ptr, value.len < sizeof text ? value.len : sizeof text - 1);
    hook_string_free(&value);
    long port = strtol(text, NULL, 10);
    return port > 0 && port <= UINT16_MAX ? (uint16_t)port : 0;
}

// The one function that Tagfall calls; bindings/hook.h declares it. `true` is a report, `false` a failure.
bool exports_tagfall_hooks_health_check_check(tagfall_hooks_types_context_t *ctx, report_t *out, failure_t *err) {
    tagfall_hooks_types_context_free(ctx);
    uint16_t port = port_at("/cfg/port");
    if (port == 0) return fail(err, "no-port", "[config] needs `port`, where Redis listens");

    hook_string_t host;
    hook_string_set(&host, "127.0.0.1");
    hook_list_u8_t ping = {(uint8_t *)"PING\r\n", 6}, answer;
    tagfall_hooks_probe_probe_error_t error;
    if (!tagfall_hooks_probe_tcp(&host, port, &ping, 7, 0, &answer, &error)) {
        // `denied` says which line group.toml needs; pass its message on as it is.
        memset(out, 0, sizeof *out);
        out->health = TAGFALL_HOOKS_TYPES_HEALTH_CRITICAL;
        out->message = error.message;
        return true;
    }
    if (answer.len >= 7 && memcmp(answer.ptr, "+PONG\r\n", 7) == 0) {
        return report(out, TAGFALL_HOOKS_TYPES_HEALTH_OK, "Redis answers PONG");
    }
    char message[64];
    snprintf(message, sizeof message, "Redis answers `%.*s`", (int)answer.len, (char *)answer.ptr);
    return report(out, TAGFALL_HOOKS_TYPES_HEALTH_CRITICAL, message);
}
