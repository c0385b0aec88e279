/* Names of a guest's disks as Xen writes them: xvda, sdb1, hdc, d3p2 or the number that stands for one
 * (encoding: Xen's vbd-interface document). Pure; nothing is allocated. */
#pragma once

#include <stdint.h>

enum vdev_family { VDEV_XVD, VDEV_SD, VDEV_HD, VDEV_PLAIN /* dN */ };

struct vdev {
	enum vdev_family family;
	uint32_t disk;      /* 0 is the first: xvda, sda, hda, d0 */
	uint32_t partition; /* 0: the whole disk */
};

/* -EINVAL if text names no disk; *ret is then untouched. */
int vdev_parse(const char *text, struct vdev *ret);
/* Order in which a guest meets its disks: by disk, then partition, then family. <0, 0, >0. */
int vdev_compare(const struct vdev *a, const struct vdev *b);
