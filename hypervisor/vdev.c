#include "hypervisor/vdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VDEV_DISKS_MAX (1u << 20)
#define VDEV_PARTITIONS_MAX 255u

/* Digits only, without sign or leading zero; -1 otherwise. Moves *p behind them. */
static int64_t read_digits(const char **p, uint32_t max)
{
	uint64_t value = 0;

	if (**p < '0' || **p > '9' || (**p == '0' && (*p)[1] >= '0' && (*p)[1] <= '9'))
		return -1;
	for (; **p >= '0' && **p <= '9'; (*p)++) {
		value = value * 10 + (uint64_t)(**p - '0');
		if (value > max)
			return -1;
	}
	return (int64_t)value;
}

/* LETTERS[PART] behind xvd, sd or hd: a..z, aa..zz and so on. */
static int read_lettered(const char *p, enum vdev_family family, struct vdev *ret)
{
	uint64_t number = 0;
	int64_t partition = 0;

	if (*p < 'a' || *p > 'z')
		return -EINVAL;
	for (; *p >= 'a' && *p <= 'z'; p++) {
		number = number * 26 + (uint64_t)(*p - 'a' + 1);
		if (number > VDEV_DISKS_MAX)
			return -EINVAL;
	}
	if (*p != '\0') {
		partition = read_digits(&p, VDEV_PARTITIONS_MAX);
		if (partition < 1 || *p != '\0')
			return -EINVAL;
	}
	*ret = (struct vdev){family, (uint32_t)number - 1, (uint32_t)partition};
	return 0;
}

/* dN[pM] */
static int read_plain(const char *p, struct vdev *ret)
{
	int64_t disk = read_digits(&p, VDEV_DISKS_MAX - 1), partition = 0;

	if (disk < 0)
		return -EINVAL;
	if (*p == 'p') {
		p++;
		partition = read_digits(&p, VDEV_PARTITIONS_MAX);
		if (partition < 0)
			return -EINVAL;
	}
	if (*p != '\0')
		return -EINVAL;
	*ret = (struct vdev){VDEV_PLAIN, (uint32_t)disk, (uint32_t)partition};
	return 0;
}

/* The number in XenStore: extended form, or the major and minor numbers of Linux's xvd, sd and hd. */
static int read_number(const char *p, struct vdev *ret)
{
	char *end;

	errno = 0;
	unsigned long value = strtoul(p, &end, 0);
	if (errno != 0 || *end != '\0')
		return -EINVAL;
	if (value >> 28 == 1) {
		*ret = (struct vdev){VDEV_XVD, (uint32_t)(value & 0xfffffff) >> 8, (uint32_t)value & 0xff};
	} else if (value >> 8 == 202) {
		*ret = (struct vdev){VDEV_XVD, (uint32_t)(value & 0xff) >> 4, (uint32_t)value & 0xf};
	} else if (value >> 8 == 8) {
		*ret = (struct vdev){VDEV_SD, (uint32_t)(value & 0xff) >> 4, (uint32_t)value & 0xf};
	} else if (value >> 8 == 3 || value >> 8 == 22) {
		uint32_t base = value >> 8 == 22 ? 2 : 0;
		if ((value & 0xff) >> 6 > 1)
			return -EINVAL;
		*ret = (struct vdev){VDEV_HD, base + ((uint32_t)(value & 0xff) >> 6), (uint32_t)value & 0x3f};
	} else {
		return -EINVAL;
	}
	return 0;
}

int vdev_parse(const char *text, struct vdev *ret)
{
	if (strncmp(text, "xvd", 3) == 0)
		return read_lettered(text + 3, VDEV_XVD, ret);
	if (strncmp(text, "sd", 2) == 0)
		return read_lettered(text + 2, VDEV_SD, ret);
	if (strncmp(text, "hd", 2) == 0)
		return read_lettered(text + 2, VDEV_HD, ret);
	if (text[0] == 'd')
		return read_plain(text + 1, ret);
	if (text[0] >= '0' && text[0] <= '9')
		return read_number(text, ret);
	return -EINVAL;
}

int vdev_compare(const struct vdev *a, const struct vdev *b)
{
	if (a->disk != b->disk)
		return a->disk < b->disk ? -1 : 1;
	if (a->partition != b->partition)
		return a->partition < b->partition ? -1 : 1;
	return (int)a->family - (int)b->family;
}
