/* The lab guest's memory pattern. See guestwork.h.
 *
 * What a page holds follows from its number and its version alone, so that a page that was lost, stale,
 * swapped with another or damaged by a migration is found out whenever it is read. The versions are kept apart.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/lab/guest/guestwork.h"

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define PAGES_PER_MB 256u
#define SLICE_MS 10u
#define CHECK_PAGES_PER_SLICE 4u /* read back besides those that are rewritten */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *pages;
static uint32_t *versions;
static size_t page_count;

static uint64_t page_seed(size_t page, uint32_t version)
{
	uint64_t x = ((uint64_t)version << 32 | (uint32_t)page) + 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 27;
}

static uint64_t word_next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state ^ *state >> 33;
}

static void page_write(size_t page)
{
	uint64_t *words = pages + page * PAGE_WORDS;
	uint64_t state = page_seed(page, versions[page]);

	words[0] = page;
	words[1] = versions[page];
	for (size_t i = 2; i < PAGE_WORDS; i++)
		words[i] = word_next(&state);
}

static bool page_is_good(size_t page)
{
	const volatile uint64_t *words = pages + page * PAGE_WORDS;
	uint64_t state = page_seed(page, versions[page]);

	if (words[0] != page || words[1] != versions[page])
		return false;
	for (size_t i = 2; i < PAGE_WORDS; i++)
		if (words[i] != word_next(&state))
			return false;
	return true;
}

/* A bad page is counted and said once, then repaired: the next count is the next fault. */
static bool page_check(struct guest *guest, size_t page)
{
	uint64_t *words = pages + page * PAGE_WORDS;

	if (page_is_good(page))
		return true;
	if (atomic_fetch_add(&guest->verify_errors, 1) < 10)
		guest_say("MEMORY BAD page=%zu version=%u found=%llu/%llu", page, versions[page],
			  (unsigned long long)words[0], (unsigned long long)words[1]);
	page_write(page);
	return false;
}

size_t guest_memory_pages(void)
{
	return page_count;
}

/* Take the memory and write every page for the first time. Only the main thread, before all others. */
int guest_memory_fill(struct guest *guest)
{
	size_t count = (size_t)guest->options.memory_mb * PAGES_PER_MB;
	void *area = mmap(NULL, count * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		return -errno;
	versions = calloc(count, sizeof(*versions));
	if (!versions) {
		munmap(area, count * PAGE_BYTES);
		return -ENOMEM;
	}
	pages = area;
	page_count = count;
	for (size_t page = 0; page < count; page++)
		page_write(page);
	return 0;
}

size_t guest_memory_verify_all(struct guest *guest)
{
	size_t bad = 0;

	pthread_mutex_lock(&lock);
	for (size_t page = 0; page < page_count; page++)
		bad += !page_check(guest, page);
	pthread_mutex_unlock(&lock);
	return bad;
}

/* Flip one bit, so that a test can see that a fault is found. */
void guest_memory_damage(void)
{
	pthread_mutex_lock(&lock);
	if (page_count)
		pages[page_count / 3 * PAGE_WORDS + 100] ^= 1;
	pthread_mutex_unlock(&lock);
}

/* One slice of work: rewrite `count` pages from `*next` on, each checked before, and check a few far from there. */
static void slice_run(struct guest *guest, size_t count, size_t *next, size_t *next_check)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < count; i++) {
		page_check(guest, *next);
		versions[*next]++;
		page_write(*next);
		*next = (*next + 1) % page_count;
	}
	for (size_t i = 0; i < CHECK_PAGES_PER_SLICE; i++) {
		page_check(guest, *next_check);
		*next_check = (*next_check + 1) % page_count;
	}
	pthread_mutex_unlock(&lock);
	atomic_fetch_add(&guest->pages_rewritten, count);
}

void *guest_memory_run(void *argument)
{
	struct guest *guest = argument;
	uint64_t due_ms = 0; /* pages x ms that the rate owes */
	size_t next = 0, next_check;

	if (page_count == 0)
		return NULL;
	next_check = page_count / 2;
	for (;;) {
		size_t count;

		guest_sleep_ms(SLICE_MS);
		due_ms += (uint64_t)guest->options.rate_mb * PAGES_PER_MB * SLICE_MS;
		count = due_ms / 1000;
		due_ms %= 1000;
		slice_run(guest, count, &next, &next_check);
	}
	return NULL;
}
