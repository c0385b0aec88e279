#include "hypervisor/spec.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/vdev.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

#define MIB (1024ull * 1024)
#define RANDOM_UUID_BYTES 16
#define RANDOM_MAC_BYTES 3
#define SPEC_DEFAULT_MACHINE "pc-q35-7.2"
#define SPEC_DEFAULT_WEIGHT 256

static_assert(RANDOM_UUID_BYTES + LIMIT_DOMAIN_NICS * RANDOM_MAC_BYTES <= 64, "the caller's random bytes suffice");

static void complete_uuid(Gantry__DomainSpec *spec, const uint8_t random[64])
{
	uint8_t b[RANDOM_UUID_BYTES];

	if (spec->uuid[0] != '\0')
		return;
	memcpy(b, random, sizeof(b));
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* RFC 4122: version 4, variant 1 */
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	_cleanup_free_ char *text = str_printf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
					       b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
					       b[13], b[14], b[15]);
	pb_set_string(&spec->uuid, text);
}

static bool has_mac(const Gantry__DomainSpec *spec, const char *mac)
{
	for (size_t i = 0; i < spec->n_nics; i++)
		if (strcmp(spec->nics[i]->mac, mac) == 0)
			return true;
	return false;
}

/* Xen's prefix and three octets of the caller's randomness, changed until the domain has the address once. */
static void complete_macs(Gantry__DomainSpec *spec, const uint8_t random[64])
{
	for (size_t i = 0; i < spec->n_nics && i < LIMIT_DOMAIN_NICS; i++) {
		const uint8_t *octets = random + RANDOM_UUID_BYTES + i * RANDOM_MAC_BYTES;
		uint8_t last = octets[2];
		char mac[18];

		if (spec->nics[i]->mac[0] != '\0')
			continue;
		do
			snprintf(mac, sizeof(mac), "00:16:3e:%02x:%02x:%02x", octets[0], octets[1], last++);
		while (has_mac(spec, mac));
		pb_set_string(&spec->nics[i]->mac, mac);
	}
}

void spec_complete(Gantry__DomainSpec *spec, const uint8_t random[64])
{
	complete_uuid(spec, random);
	complete_macs(spec, random);
	if (spec->machine[0] == '\0')
		pb_set_string(&spec->machine, SPEC_DEFAULT_MACHINE);
	if (spec->boot_order[0] == '\0')
		pb_set_string(&spec->boot_order, "cd");
	if (spec->vcpus == 0)
		spec->vcpus = 1;
	if (spec->max_vcpus == 0)
		spec->max_vcpus = spec->vcpus;
	if (spec->max_memory_bytes == 0)
		spec->max_memory_bytes = spec->memory_bytes;
	if (spec->cpu_weight == 0)
		spec->cpu_weight = SPEC_DEFAULT_WEIGHT;
}

static int fail(const Gantry__DomainSpec *spec, struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(const Gantry__DomainSpec *spec, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "domain '%.64s': %s", spec->name, text);
}

static bool is_uuid(const char *p)
{
	for (int i = 0; i < 36; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (p[i] != '-')
				return false;
		} else if (p[i] == '\0' || !strchr("0123456789abcdef", p[i])) {
			return false;
		}
	}
	return p[36] == '\0';
}

static bool is_name(const char *p)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-";

	return *p != '\0' && *p != '.' && *p != '-' && p[strspn(p, allowed)] == '\0' && strlen(p) <= LIMIT_NAME_CHARS;
}

static int check_identity(const Gantry__DomainSpec *spec, struct err *err)
{
	if (spec->name[0] == '\0')
		return fail(spec, err, "name: is missing");
	if (!is_name(spec->name))
		return fail(spec, err,
			    "name: has to be made of letters, digits and _ . + -, to begin with none of . and -, and to have at most "
			    "%d characters",
			    LIMIT_NAME_CHARS);
	if (spec->name[strspn(spec->name, "0123456789")] == '\0')
		return fail(spec, err, "name: is a number, which would be taken for a domain's ID; add a letter");
	if (is_uuid(spec->name))
		return fail(spec, err, "name: looks like a uuid, and would be taken for one");
	if (!is_uuid(spec->uuid))
		return fail(spec, err, "uuid: '%.60s' is not of the form 01234567-89ab-cdef-0123-456789abcdef", spec->uuid);
	return 0;
}

static int check_sizes(const Gantry__DomainSpec *spec, struct err *err)
{
	if (spec->memory_bytes == 0)
		return fail(spec, err, "memory: is missing; add a line like memory = 1024 (MiB)");
	if (spec->memory_bytes < MIB || spec->memory_bytes % MIB != 0)
		return fail(spec, err, "memory: %" PRIu64 " bytes are no whole number of MiB", spec->memory_bytes);
	if (spec->memory_bytes > LIMIT_DOMAIN_MEMORY_BYTES || spec->max_memory_bytes > LIMIT_DOMAIN_MEMORY_BYTES)
		return fail(spec, err, "memory: more than %llu MiB", LIMIT_DOMAIN_MEMORY_BYTES / MIB);
	if (spec->max_memory_bytes < spec->memory_bytes)
		return fail(spec, err, "maxmem: %" PRIu64 " MiB are less than memory, %" PRIu64 " MiB",
			    (uint64_t)(spec->max_memory_bytes / MIB), (uint64_t)(spec->memory_bytes / MIB));
	if (spec->vcpus == 0 || spec->max_vcpus > LIMIT_DOMAIN_VCPUS)
		return fail(spec, err, "vcpus: has to be between 1 and %d", LIMIT_DOMAIN_VCPUS);
	if (spec->max_vcpus < spec->vcpus)
		return fail(spec, err, "maxvcpus: %u is less than vcpus, %u", spec->max_vcpus, spec->vcpus);
	return 0;
}

static int check_boot(const Gantry__DomainSpec *spec, struct err *err)
{
	const struct {
		const char *key, *path;
	} files[] = {{"kernel", spec->kernel}, {"ramdisk", spec->ramdisk}};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (files[i].path[0] != '\0' && files[i].path[0] != '/')
			return fail(spec, err, "%s: '%.120s' is not an absolute path", files[i].key, files[i].path);
	if (spec->ramdisk[0] != '\0' && spec->kernel[0] == '\0')
		return fail(spec, err, "ramdisk: needs kernel");
	if (spec->boot_order[strspn(spec->boot_order, "cdn")] != '\0')
		return fail(spec, err, "boot: '%.20s' has to be made of the letters c, d and n", spec->boot_order);
	return 0;
}

static int check_disk(const Gantry__DomainSpec *spec, const Gantry__Disk *disk, struct err *err)
{
	struct vdev vdev;

	if (vdev_parse(disk->vdev, &vdev) < 0)
		return fail(spec, err, "disk: vdev '%.60s' is no disk's name, such as xvda, sdb1 or hdc", disk->vdev);
	if (disk->empty ? !disk->cdrom : disk->pool[0] == '\0' && disk->path[0] == '\0')
		return fail(spec, err, "disk %s: has no target; only a cdrom may be empty", disk->vdev);
	if ((disk->pool[0] == '\0') != (disk->volume[0] == '\0'))
		return fail(spec, err, "disk %s: pool and volume go together", disk->vdev);
	if (disk->pool[0] != '\0' && (!is_name(disk->pool) || !is_name(disk->volume)))
		return fail(spec, err, "disk %s: '%.60s/%.60s' is no volume's name", disk->vdev, disk->pool, disk->volume);
	if (disk->path[0] != '\0' && disk->path[0] != '/' && strchr(disk->path, ':') == NULL && disk->script[0] == '\0')
		return fail(spec, err, "disk %s: '%.120s' is not an absolute path", disk->vdev, disk->path);
	return 0;
}

/* Two disks of one name, or one store written by two disks. */
static int check_disk_pair(const Gantry__DomainSpec *spec, const Gantry__Disk *a, const Gantry__Disk *b, struct err *err)
{
	struct vdev vdev_a, vdev_b;
	bool same_store;

	vdev_parse(a->vdev, &vdev_a);
	vdev_parse(b->vdev, &vdev_b);
	if (vdev_compare(&vdev_a, &vdev_b) == 0)
		return fail(spec, err, "disk: two disks are called %s", a->vdev);
	same_store = a->pool[0] != '\0' ? !strcmp(a->pool, b->pool) && !strcmp(a->volume, b->volume)
					: a->path[0] != '\0' && !strcmp(a->path, b->path);
	if (same_store && (!a->readonly || !b->readonly))
		return fail(spec, err, "disk: %s and %s have the same target, and one of them writes to it", a->vdev, b->vdev);
	return 0;
}

static int check_disks(const Gantry__DomainSpec *spec, struct err *err)
{
	int rc = 0;

	if (spec->n_disks > LIMIT_DOMAIN_DISKS)
		return fail(spec, err, "disk: more than %d disks", LIMIT_DOMAIN_DISKS);
	for (size_t i = 0; rc == 0 && i < spec->n_disks; i++) {
		rc = check_disk(spec, spec->disks[i], err);
		for (size_t j = 0; rc == 0 && j < i; j++)
			rc = check_disk_pair(spec, spec->disks[j], spec->disks[i], err);
	}
	return rc;
}

static bool is_mac(const char *p)
{
	for (int i = 0; i < 17; i++)
		if (i % 3 == 2 ? p[i] != ':' : p[i] == '\0' || !strchr("0123456789abcdef", p[i]))
			return false;
	return p[17] == '\0' && !strchr("13579bdf", p[1]);
}

static int check_nics(const Gantry__DomainSpec *spec, struct err *err)
{
	if (spec->n_nics > LIMIT_DOMAIN_NICS)
		return fail(spec, err, "vif: more than %d network cards", LIMIT_DOMAIN_NICS);
	for (size_t i = 0; i < spec->n_nics; i++) {
		const Gantry__Nic *nic = spec->nics[i];
		if (!is_mac(nic->mac))
			return fail(spec, err, "vif: mac '%.40s' is not of the form 00:16:3e:01:02:03", nic->mac);
		/* IFNAMSIZ of the kernel: 15 characters and the end. */
		if (strlen(nic->bridge) > 15 || strchr(nic->bridge, '/') || strlen(nic->ifname) > 15 ||
		    strchr(nic->ifname, '/'))
			return fail(spec, err, "vif %s: names of interfaces have at most 15 characters, and no '/'", nic->mac);
		for (size_t j = 0; j < i; j++) {
			if (strcmp(spec->nics[j]->mac, nic->mac) == 0)
				return fail(spec, err, "vif: two network cards have the mac %s", nic->mac);
			if (nic->ifname[0] != '\0' && strcmp(spec->nics[j]->ifname, nic->ifname) == 0)
				return fail(spec, err, "vif: two network cards have the vifname %s", nic->ifname);
		}
	}
	return 0;
}

int spec_check(const Gantry__DomainSpec *spec, struct err *err)
{
	int rc = check_identity(spec, err);

	if (rc == 0)
		rc = check_sizes(spec, err);
	if (rc == 0)
		rc = check_boot(spec, err);
	if (rc == 0)
		rc = check_disks(spec, err);
	return rc == 0 ? check_nics(spec, err) : rc;
}
