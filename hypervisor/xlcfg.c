#include "hypervisor/xlcfg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/vdev.h"
#include "hypervisor/xlcfg_reader.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"

static bool is_less(const Gantry__Disk *a, const Gantry__Disk *b)
{
	struct vdev vdev_a, vdev_b;

	/* Both were parsed before they were taken into the specification. */
	vdev_parse(a->vdev, &vdev_a);
	vdev_parse(b->vdev, &vdev_b);
	return vdev_compare(&vdev_a, &vdev_b) < 0;
}

/* The guest meets its disks in the order of their names, whatever the order in the file. */
static void sort_disks(Gantry__DomainSpec *spec)
{
	for (size_t i = 1; i < spec->n_disks; i++) {
		Gantry__Disk *disk = spec->disks[i];
		size_t at = i;
		for (; at > 0 && is_less(disk, spec->disks[at - 1]); at--)
			spec->disks[at] = spec->disks[at - 1];
		spec->disks[at] = disk;
	}
}

/* The disk that a device name of the command line means: its place, and the partition on it. */
static bool find_root_disk(const Gantry__DomainSpec *spec, const char *name, size_t *ret_place, uint32_t *ret_partition)
{
	struct vdev wanted, have;

	if (vdev_parse(name, &wanted) < 0 || name[0] == 'd' || (name[0] >= '0' && name[0] <= '9'))
		return false;
	for (int exact = 1; exact >= 0; exact--) {
		size_t place = 0;
		for (size_t i = 0; i < spec->n_disks; i++) {
			/* A drive for removable media is no virtio disk, and takes no name from them. */
			if (spec->disks[i]->cdrom)
				continue;
			place++;
			vdev_parse(spec->disks[i]->vdev, &have);
			if (have.disk != wanted.disk || have.family != wanted.family)
				continue;
			if (exact ? have.partition != wanted.partition : have.partition != 0)
				continue;
			*ret_place = place - 1;
			/* A vdev such as xvda1 is a whole disk to the guest, without a partition table. */
			*ret_partition = exact ? 0 : wanted.partition;
			return true;
		}
	}
	return false;
}

/* Xen's frontends call the disks as vdev says; virtio calls them vda, vdb, ... in their order. Without
 * this, root=/dev/xvda1 would find nothing. */
void xlcfg__map_root(struct xlcfg_reader *r)
{
	const char *cmdline = r->spec->cmdline, *found = strstr(cmdline, "root=/dev/");
	size_t place;
	uint32_t partition;

	if (r->spec->type == GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM || found == NULL ||
	    (found != cmdline && found[-1] != ' '))
		return;
	const char *name = found + strlen("root=/dev/");
	size_t len = strcspn(name, " ");
	_cleanup_free_ char *device = str_printf("%.*s", (int)len, name);
	if (!find_root_disk(r->spec, device, &place, &partition) || place >= 26)
		return;
	char number[16] = "";
	if (partition != 0)
		snprintf(number, sizeof(number), "%u", partition);
	_cleanup_free_ char *mapped = str_printf("%.*s/dev/vd%c%s%s", (int)(found - cmdline) + 5, cmdline,
						 (char)('a' + place), number, name + len);
	const struct xlcfg_setting *setting = xlcfg__find(r, "cmdline");
	if (setting == NULL)
		setting = xlcfg__find(r, "root");
	if (setting == NULL)
		setting = xlcfg__find(r, "extra");
	xlcfg__warn(r, &setting->pos, "root=/dev/%.60s is passed on as root=/dev/vd%c%s, the name of this virtio disk", device,
		    (char)('a' + place), number);
	pb_set_string(&r->spec->cmdline, mapped);
}

static int read_all(struct xlcfg_reader *r)
{
	static int (*const parts[])(struct xlcfg_reader *) = {
		xlcfg__read_identity, xlcfg__check_keys,    xlcfg__read_sizes,	 xlcfg__read_cpus,  xlcfg__read_boot,
		xlcfg__read_lifecycle, xlcfg__read_machine, xlcfg__read_display, xlcfg__read_disks, xlcfg__read_nics,
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		int rc = parts[i](r);
		if (rc < 0)
			return rc;
	}
	sort_disks(r->spec);
	xlcfg__map_root(r);
	return 0;
}

/* An argument as a line of the file. The shell eats quotes, so a value that could only be a text need not have any: xl would
 * refuse it. */
static char *argument_line(const char *argument)
{
	size_t key = strcspn(argument, "=");
	const char *value = argument[key] ? argument + key + 1 : "";

	if (*value == '\0' || strchr("\"'[ \t0123456789", *value) != NULL || strpbrk(value, "\"\\\n") != NULL)
		return str_dup(argument);
	return str_printf("%.*s=\"%s\"", (int)key, argument, value);
}

static int read_sources(struct xlcfg_file *file, const char *name, const char *text, size_t len, const char *const *extra,
			size_t n_extra, struct err *err)
{
	int rc = xlcfg__file_add(file, name, text, len, err);

	for (size_t i = 0; rc == 0 && i < n_extra; i++) {
		_cleanup_free_ char *source = str_printf("argument '%.80s'", extra[i]);
		_cleanup_free_ char *line = argument_line(extra[i]);
		rc = xlcfg__file_add(file, source, line, strlen(line), err);
	}
	return rc;
}

int xlcfg_parse(const char *name, const char *text, size_t len, const char *const *extra, size_t n_extra,
		Gantry__DomainSpec **ret, struct xlcfg_warnings *warnings, struct err *err)
{
	struct xlcfg_reader r = {.warnings = warnings, .err = err};
	int rc = read_sources(&r.file, name, text, len, extra, n_extra, err);

	if (rc == 0) {
		r.spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
		rc = read_all(&r);
	}
	if (r.warnings_dropped > 0 && warnings != NULL) {
		warnings->lines = mem_realloc(warnings->lines, (warnings->n + 1) * sizeof(*warnings->lines));
		warnings->lines[warnings->n++] = str_printf("%s: %zu more warnings", name, r.warnings_dropped);
	}
	xlcfg__file_free(&r.file);
	if (rc < 0) {
		if (r.spec != NULL)
			gantry__domain_spec__free_unpacked(r.spec, NULL);
		return rc;
	}
	*ret = r.spec;
	return 0;
}
