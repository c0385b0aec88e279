/* The parts of clusterd put together: the member, the leader's duties, the agent's link, the API. */
#pragma once

#include <uv.h>

#include "lib/err.h"
#include "lib/hostconf.h"

struct daemon_parts;

/* conf stays valid as long as the parts live. Errors say what is to be done about them. */
int daemon_parts_start(uv_loop_t *loop, const struct hostconf *conf, struct daemon_parts **ret, struct err *err);
/* Leaves the group, finishes the disk's work; on_stopped once, after which everything is freed. */
void daemon_parts_stop(struct daemon_parts *parts, void (*on_stopped)(void *data), void *data);
