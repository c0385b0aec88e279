/* One network card as xl writes it: "mac=00:16:3e:01:02:03,bridge=gbr0,rate=10Mb/s". Pure. Owner of *ret: caller. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "hypervisor/xlcfg_disk.h"
#include "lib/err.h"
#include "proto/domain.pb-c.h"

/* -EINVAL: err says what, *ret_offset says where. Words without a meaning are noted. */
int xlcfg_vif_parse(const char *text, Gantry__Nic **ret, size_t *ret_offset, xlcfg_note_fn note, void *data,
		    struct err *err);
/* xl-network-configuration(5)'s rate: "10Mb/s", "250KB/s@20ms". */
int xlcfg_rate_parse(const char *text, uint64_t *ret_bytes_per_interval, uint32_t *ret_interval_us, struct err *err);
