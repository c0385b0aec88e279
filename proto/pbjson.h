/* A protobuf message as JSON, through its descriptor: field names as in the .proto, enums in
 * lower case without their common prefix ("running"), empty fields left out unless `all`.
 * bytes fields and FenceParam.value with secret=true are never printed. Pure but for jansson. */
#pragma once

#include <stdbool.h>
#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "lib/err.h"

/* New reference; owner: caller. */
json_t *pbjson_from_message(const ProtobufCMessage *message, bool all);
/* The inverse (domain agent's notes, spec files). Unknown names are errors. Owner: caller. */
int pbjson_to_message(const json_t *json, const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret, struct err *err);
/* "running" for DOMAIN_STATE_RUNNING. Never NULL. Static storage per (descriptor, value) or the .proto name. */
const char *pbjson_enum_word(const ProtobufCEnumDescriptor *descriptor, int value);
