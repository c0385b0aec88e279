/* JSON values as YAML, by libyaml. Texts that YAML would read as something else are quoted. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* Limit: YAML_EMIT_DEPTH levels. 0 or a negative errno. */
#define YAML_EMIT_DEPTH 32
int yaml_emit(const json_t *json, FILE *out);
