/* The lab guest's disk log: one checksummed record after the other, each on stable storage before the next.
 * See guestwork.h; tests/lab/guest/disklog reads the same format on the host.
 *
 * Record n stands in block n and names the checksum of record n - 1, so that a lost, stale or foreign write breaks
 * the chain. Before each append the last record is read back and the next block must be empty: a second
 * writer of the same volume is found out within one period.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tests/lab/guest/guestwork.h"

#define RECORD_MAGIC 0x31474f4c4b534447u /* "GDSKLOG1" */
#define RECORD_BYTES 512u
#define BLOCK_MAX 4096u
#define READ_BYTES 65536u

struct disk_record {
	uint64_t magic;
	uint64_t boot_id;
	uint64_t seq;
	uint64_t boots; /* boots that have written here, this one included */
	uint64_t wall_ns;
	uint32_t previous_crc;
	uint32_t block_bytes;
	uint8_t unused[RECORD_BYTES - 52];
	uint32_t crc; /* of all before it */
};
_Static_assert(sizeof(struct disk_record) == RECORD_BYTES, "a record is one sector");

struct disk_log {
	int fd;
	unsigned block_bytes;
	uint64_t blocks;
	uint64_t records;
	uint64_t boots;
	uint32_t last_crc;
	char *buffer; /* READ_BYTES, aligned for O_DIRECT */
};

static uint32_t crc32c(const void *data, size_t length)
{
	const uint8_t *bytes = data;
	uint32_t crc = ~0u;

	while (length--) {
		crc ^= *bytes++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
	}
	return ~crc;
}

static bool record_is_sound(const struct disk_record *record)
{
	return record->magic == RECORD_MAGIC && record->crc == crc32c(record, offsetof(struct disk_record, crc));
}

static bool block_is_zero(const char *block, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (block[i])
			return false;
	return true;
}

static int log_open(struct disk_log *log, const char *disk)
{
	char path[64];
	uint64_t bytes;
	int sector;

	snprintf(path, sizeof(path), "/dev/%s", disk);
	log->fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
	if (log->fd < 0)
		return -errno;
	if (ioctl(log->fd, BLKSSZGET, &sector) < 0 || ioctl(log->fd, BLKGETSIZE64, &bytes) < 0 ||
	    sector < (int)RECORD_BYTES || sector > (int)BLOCK_MAX) {
		close(log->fd);
		return -EINVAL;
	}
	log->block_bytes = (unsigned)sector;
	log->blocks = bytes / log->block_bytes;
	return 0;
}

/* Follow the chain through one buffer of blocks; false when it has ended (cleanly or, with `*ret_bad`, not). */
static bool log_follow(struct disk_log *log, size_t blocks, const char **ret_bad)
{
	for (size_t i = 0; i < blocks; i++) {
		const struct disk_record *record = (const void *)(log->buffer + i * log->block_bytes);

		if (!record_is_sound(record)) {
			if (log->records == 0 && !block_is_zero(log->buffer, log->block_bytes))
				*ret_bad = "foreign data, left alone";
			return false;
		}
		if (record->seq != log->records || (log->records && record->previous_crc != log->last_crc)) {
			*ret_bad = "the chain is broken";
			return false;
		}
		log->last_crc = record->crc;
		log->boots = record->boots;
		log->records++;
	}
	return true;
}

/* A sound record behind the end of the chain means that a write before it was lost. */
static bool log_goes_on(struct disk_log *log)
{
	ssize_t length = pread(log->fd, log->buffer, READ_BYTES, (off_t)(log->records * log->block_bytes));

	for (ssize_t at = log->block_bytes; at + (ssize_t)log->block_bytes <= length; at += log->block_bytes)
		if (record_is_sound((const void *)(log->buffer + at)))
			return true;
	return false;
}

/* Read the whole log. Returns NULL, or what is wrong with it. */
static const char *log_replay(struct disk_log *log)
{
	const char *bad = NULL;

	log->records = log->boots = 0;
	log->last_crc = 0;
	while (log->records < log->blocks) {
		ssize_t length = pread(log->fd, log->buffer, READ_BYTES, (off_t)(log->records * log->block_bytes));

		if (length < (ssize_t)log->block_bytes)
			return "it cannot be read";
		if (!log_follow(log, (size_t)length / log->block_bytes, &bad))
			break;
	}
	if (!bad && log_goes_on(log))
		bad = "a record in the middle is missing";
	return bad;
}

/* Nobody else may have written: the last record is still there and the next block holds none. */
static bool log_is_ours(struct disk_log *log)
{
	const struct disk_record *last = (const void *)log->buffer;
	const struct disk_record *next = (const void *)(log->buffer + log->block_bytes);
	ssize_t want = 2 * (ssize_t)log->block_bytes;

	if (log->records == 0 || log->records + 1 >= log->blocks)
		return true;
	if (pread(log->fd, log->buffer, (size_t)want, (off_t)((log->records - 1) * log->block_bytes)) != want)
		return false;
	return record_is_sound(last) && last->crc == log->last_crc && last->seq == log->records - 1 &&
	       !record_is_sound(next);
}

static int log_append(struct disk_log *log, uint64_t boot_id)
{
	struct disk_record *record = (void *)log->buffer;

	memset(log->buffer, 0, log->block_bytes);
	*record = (struct disk_record){
	    .magic = RECORD_MAGIC,
	    .boot_id = boot_id,
	    .seq = log->records,
	    .boots = log->boots,
	    .wall_ns = guest_clock_ns(CLOCK_REALTIME),
	    .previous_crc = log->last_crc,
	    .block_bytes = log->block_bytes,
	};
	record->crc = crc32c(record, offsetof(struct disk_record, crc));
	if (pwrite(log->fd, log->buffer, log->block_bytes, (off_t)(log->records * log->block_bytes)) !=
	    (ssize_t)log->block_bytes)
		return -EIO;
	log->last_crc = record->crc;
	log->records++;
	return 0;
}

static void log_run(struct guest *guest, struct disk_log *log)
{
	bool foreign = false, retry = false;

	log->boots++;
	while (log->records < log->blocks) {
		/* A write that failed may yet have arrived: its block is written again, not looked at. */
		if (!retry && !log_is_ours(log)) {
			atomic_fetch_add(&guest->disk_errors, 1);
			if (!foreign)
				guest_say("DISK BAD record %llu was changed by somebody else, or cannot be read",
					  (unsigned long long)log->records);
			foreign = true;
		} else if (log_append(log, guest->boot_id) < 0) {
			atomic_fetch_add(&guest->disk_errors, 1);
			retry = true;
		} else {
			atomic_store(&guest->disk_records, log->records);
			retry = false;
		}
		guest_sleep_ms(guest->options.disk_ms);
	}
	guest_say("DISK full, %llu records", (unsigned long long)log->records);
}

void *guest_disk_run(void *argument)
{
	struct guest *guest = argument;
	struct disk_log log = {.fd = -1};
	const char *bad;

	log.buffer = aligned_alloc(BLOCK_MAX, READ_BYTES);
	if (!log.buffer)
		return NULL;
	while (log_open(&log, guest->options.disk) < 0) /* it may be attached later */
		guest_sleep_ms(500);
	atomic_store(&guest->disk_found, true);
	bad = log_replay(&log);
	if (bad) {
		atomic_fetch_add(&guest->disk_errors, 1);
		guest_say("DISK BAD record %llu: %s", (unsigned long long)log.records, bad);
	} else {
		guest_say("DISK ok %llu records boots %llu", (unsigned long long)log.records,
			  (unsigned long long)log.boots);
		atomic_store(&guest->disk_records, log.records);
		log_run(guest, &log);
	}
	free(log.buffer);
	close(log.fd);
	return NULL;
}
