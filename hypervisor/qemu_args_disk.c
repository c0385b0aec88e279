/* Disks: one -blockdev for where the bytes are, one for their format, one -device for what the guest sees. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/qemu_args_internal.h"
#include "hypervisor/vdev.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"

#define NFS_SCHEME "nfs://"
#define IDE_PORTS_Q35 6
#define IDE_PORTS_PC 4
#define SCSI_TARGETS 256

enum bus { BUS_VIRTIO, BUS_SCSI, BUS_IDE };

bool qemu_args__is_nfs(const char *uri)
{
	return !strncmp(uri, NFS_SCHEME, strlen(NFS_SCHEME));
}

static int disk_fail(struct qemu_args *a, const Gantry__Disk *disk, const char *why)
{
	return err_set_status(a->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "domain '%s': disk %s: %s", a->spec->name, disk->vdev, why);
}

static bool has_medium(const Gantry__Disk *disk)
{
	return !disk->empty && disk->format != GANTRY__DISK_FORMAT__DISK_FORMAT_EMPTY;
}

/* virtio-blk cannot be without a medium, so a paravirtual drive for removable ones is virtio-scsi's. */
static enum bus bus_of(const Gantry__DomainSpec *spec, const Gantry__Disk *disk, const struct vdev *vdev)
{
	bool hvm = spec->type == GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM;

	if (hvm && vdev->family == VDEV_HD)
		return BUS_IDE;
	if (disk->cdrom || (hvm && vdev->family == VDEV_SD))
		return BUS_SCSI;
	return BUS_VIRTIO;
}

/* How many virtio disks the guest meets before this one, and how many there are: its place gives its name (vda, vdb, ...). */
static size_t virtio_place(const Gantry__DomainSpec *spec, const struct vdev *mine, size_t *ret_total)
{
	size_t before = 0, total = 0;
	struct vdev vdev;

	for (size_t i = 0; i < spec->n_disks; i++) {
		if (vdev_parse(spec->disks[i]->vdev, &vdev) < 0 || bus_of(spec, spec->disks[i], &vdev) != BUS_VIRTIO)
			continue;
		total++;
		before += vdev_compare(&vdev, mine) < 0;
	}
	*ret_total = total;
	return before;
}

static const char *format_driver(Gantry__DiskFormat format)
{
	switch (format) {
	case GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2:
		return "qcow2";
	case GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW:
		return "qcow";
	case GANTRY__DISK_FORMAT__DISK_FORMAT_VHD:
		return "vpc";
	case GANTRY__DISK_FORMAT__DISK_FORMAT_QED:
		return "qed";
	default:
		return "raw";
	}
}

/* nfs://HOST/PATH, as QEMU's nfs driver wants it apart. NFS has no locks through libnfs: the volume's lease is the lock. */
static json_t *nfs_node(const char *uri)
{
	const char *host = uri + strlen(NFS_SCHEME), *path = strchr(host, '/');
	size_t len;

	if (!path || path == host || !path[1])
		return NULL;
	len = (size_t)(path - host);
	if (*host == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	return json_pack("{s:s, s:{s:s, s:s%}, s:s}", "driver", "nfs", "server", "type", "inet", "host", host, len, "path", path);
}

static json_t *file_node(const char *path)
{
	bool device = !strncmp(path, "/dev/", 5) && strncmp(path, "/dev/shm/", 9);

	return json_pack("{s:s, s:s}", "driver", device ? "host_device" : "file", "filename", path);
}

static int add_blockdevs(struct qemu_args *a, const Gantry__Disk *disk, const char *uri, size_t i)
{
	bool readonly = disk->readonly || disk->cdrom;
	char node[32], file[40];
	json_t *below, *above;

	snprintf(node, sizeof(node), "disk%zu", i);
	snprintf(file, sizeof(file), "disk%zu-file", i);
	below = qemu_args__is_nfs(uri) ? nfs_node(uri) : *uri == '/' ? file_node(uri) : NULL;
	if (!below)
		return disk_fail(a, disk, "its target is neither an absolute path nor nfs://ADDRESS/PATH");
	above = json_pack("{s:s, s:s, s:s}", "driver", format_driver(disk->format), "node-name", node, "file", file);
	json_object_set_new(below, "node-name", json_string(file));
	for (int k = 0; k < 2; k++) {
		json_t *layer = k ? above : below;

		json_object_set_new(layer, "read-only", json_boolean(readonly));
		json_object_set_new(layer, "discard", json_string(disk->discard ? "unmap" : "ignore"));
		/* Past the host's page cache: the next host must read what this one wrote. */
		json_object_set_new(layer, "cache", json_pack("{s:b, s:b}", "direct", 1, "no-flush", 0));
	}
	qemu_args__add_json(a, "-blockdev", below);
	qemu_args__add_json(a, "-blockdev", above);
	return 0;
}

static int put_ide(struct qemu_args *a, const Gantry__Disk *disk, const struct vdev *vdev, json_t *device)
{
	char bus[16];

	if (vdev->disk >= (a->q35 ? IDE_PORTS_Q35 : IDE_PORTS_PC))
		return disk_fail(a, disk, a->q35 ? "the machine has only hda to hdf; use xvd names" : "the machine has only hda to hdd; use xvd names");
	snprintf(bus, sizeof(bus), "ide.%u", a->q35 ? vdev->disk : vdev->disk / 2);
	json_object_set_new(device, "bus", json_string(bus));
	json_object_set_new(device, "unit", json_integer(a->q35 ? 0 : vdev->disk % 2));
	return 0;
}

static int put_on_bus(struct qemu_args *a, const Gantry__Disk *disk, const struct vdev *vdev, enum bus bus, json_t *device)
{
	size_t place, total;

	switch (bus) {
	case BUS_IDE:
		json_object_set_new(device, "driver", json_string(disk->cdrom ? "ide-cd" : "ide-hd"));
		return put_ide(a, disk, vdev, device);
	case BUS_SCSI:
		json_object_set_new(device, "driver", json_string(disk->cdrom ? "scsi-cd" : "scsi-hd"));
		json_object_set_new(device, "bus", json_string("scsi.0"));
		if (vdev->disk >= SCSI_TARGETS)
			return disk_fail(a, disk, "the SCSI bus has only 256 places");
		json_object_set_new(device, "scsi-id", json_integer(vdev->disk));
		/* A partition's name has its own unit beside the whole disk's, so that sda and sda1 do not collide. */
		json_object_set_new(device, "lun", json_integer(vdev->partition));
		return 0;
	case BUS_VIRTIO:
		break;
	}
	json_object_set_new(device, "driver", json_string("virtio-blk-pci"));
	place = virtio_place(a->spec, vdev, &total);
	return qemu_args__put_pci(a, device, QEMU_SLOT_DISKS, QEMU_DISK_SLOTS, place, total);
}

static int add_disk(struct qemu_args *a, size_t i, size_t boot_place)
{
	const Gantry__Disk *disk = a->spec->disks[i];
	const char *uri = a->host->disks ? a->host->disks[i].uri : NULL;
	bool medium = has_medium(disk);
	struct vdev vdev;
	char id[32];
	json_t *device;
	int rc, bootindex;

	if (vdev_parse(disk->vdev, &vdev) < 0)
		return disk_fail(a, disk, "is no name of a disk");
	if (medium && !uri)
		return disk_fail(a, disk, "its target was not resolved");
	if (!medium && !disk->cdrom)
		return disk_fail(a, disk, "only a cdrom can be without a medium");
	if (medium && (rc = add_blockdevs(a, disk, uri, i)) < 0)
		return rc;
	snprintf(id, sizeof(id), "vdev-%s", disk->vdev);
	device = json_pack("{s:s}", "id", id);
	rc = put_on_bus(a, disk, &vdev, bus_of(a->spec, disk, &vdev), device);
	if (rc < 0) {
		json_decref(device);
		return rc;
	}
	if (medium) {
		snprintf(id, sizeof(id), "disk%zu", i);
		json_object_set_new(device, "drive", json_string(id));
		/* Storage that is away or full stops the guest instead of giving it errors that its file system would not forgive. */
		json_object_set_new(device, "rerror", json_string("stop"));
		json_object_set_new(device, "werror", json_string("stop"));
	}
	if (!disk->cdrom)
		json_object_set_new(device, "serial", json_string(disk->vdev));
	bootindex = qemu_args__bootindex(a->spec, disk->cdrom ? 'd' : 'c', boot_place);
	if (bootindex >= 0)
		json_object_set_new(device, "bootindex", json_integer(bootindex));
	qemu_args__add_json(a, "-device", device);
	return 0;
}

static bool needs_scsi(const Gantry__DomainSpec *spec)
{
	struct vdev vdev;

	for (size_t i = 0; i < spec->n_disks; i++)
		if (vdev_parse(spec->disks[i]->vdev, &vdev) == 0 && bus_of(spec, spec->disks[i], &vdev) == BUS_SCSI)
			return true;
	return false;
}

int qemu_args__disks(struct qemu_args *a)
{
	size_t n_hard = 0, n_cd = 0;
	int rc = 0;

	if (needs_scsi(a->spec)) {
		json_t *scsi = json_pack("{s:s, s:s}", "driver", "virtio-scsi-pci", "id", "scsi");

		qemu_args__put_pci(a, scsi, QEMU_SLOT_SCSI, 1, 0, 1);
		qemu_args__add_json(a, "-device", scsi);
	}
	for (size_t i = 0; rc == 0 && i < a->spec->n_disks; i++)
		rc = add_disk(a, i, a->spec->disks[i]->cdrom ? n_cd++ : n_hard++);
	return rc;
}
