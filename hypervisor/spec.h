/* DomainSpec: completion and checking. Pure. */
#pragma once

#include <stdint.h>

#include "lib/err.h"
#include "proto/domain.pb-c.h"

/* Fills what is missing: uuid, MACs (00:16:3e), machine, max_memory, max_vcpus, boot order. `random`: 64 bytes from the caller. */
void spec_complete(Gantry__DomainSpec *spec, const uint8_t random[64]);
/* Everything that can be said wrong without looking at a host: name characters and length, uuid, memory, vcpus,
 * duplicate vdevs and MACs. -EINVAL, status 65, naming the key. */
int spec_check(const Gantry__DomainSpec *spec, struct err *err);
