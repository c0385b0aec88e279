/* Bridges and taps by rtnetlink (libnl-3). Synchronous: each call is a few netlink messages in the kernel. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

/* Makes the bridge if it is not there (forward delay 0, no STP), puts `uplink` (may be NULL/empty) into it, sets both up. Idempotent. */
int bridge_ensure(const char *bridge, const char *uplink, struct err *err);
bool bridge_exists(const char *bridge);
/* Makes a persistent tap in the bridge, up; mtu 0: the bridge's. Its own address begins with fe, so that the bridge's does not
 * change with it. An existing tap of that name that nobody uses is reused; one in use is -EBUSY. QEMU opens it by name
 * (script=no). */
int tap_create(const char *ifname, const char *bridge, uint32_t mtu, struct err *err);
/* Absent is success; an interface that is no tap is -EINVAL and stays. */
int tap_delete(const char *ifname, struct err *err);
/* All taps whose name begins with prefix: for cleaning what no domain uses. Owner: caller frees array and strings. */
int tap_list(const char *prefix, char ***ret, size_t *ret_n, struct err *err);
/* Name of a domain's i-th tap: "vif<ID>.<i>" from a stable 32-bit hash of the uuid, at most 15 characters. Owner: caller. */
char *tap_name(const char *domain_uuid, unsigned i);
