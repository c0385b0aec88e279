/* Runs a fuzz target without libFuzzer: every file of a corpus as it is, then changed copies of them for a bounded time.
 *
 *   fuzz_X [--seconds N] [--seed N] [--iteration N] FOLDER|FILE...
 *
 * Iteration i of seed s is always the same input: --seed S --iteration I repeats just that one. An input that ends the
 * program is also left in the working folder as crash-X-SEED-ITERATION. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Of the sanitizers; absent in a build without them. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

enum { DRIVER_SAMPLES_MAX = 2048, DRIVER_INPUT_MAX = 64 << 10, DRIVER_DEFAULT_S = 5, DRIVER_CHANGES_MAX = 8 };

static struct {
	struct buf samples[DRIVER_SAMPLES_MAX];
	unsigned n_samples;
	const char *program;
	uint64_t seed, iteration;
	struct buf input; /* the one that is being run */
	bool unchanged;   /* it is a sample as it lies in the corpus */
} driver;

/* splitmix64: every iteration begins its own stream, so that it can be repeated alone. */
static uint64_t driver_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static size_t driver_below(uint64_t *state, size_t limit)
{
	return limit ? driver_random(state) % limit : 0;
}

static void driver_keep_input(void)
{
	char name[128];
	int fd;

	snprintf(name, sizeof(name), "crash-%s-%llu-%llu", driver.program, (unsigned long long)driver.seed,
		 (unsigned long long)driver.iteration);
	fprintf(stderr, "%s: %s %llu of seed %llu (%zu bytes) ended it; the input is in %s\n", driver.program,
		driver.unchanged ? "unchanged sample" : "iteration", (unsigned long long)driver.iteration,
		(unsigned long long)driver.seed, driver.input.len, name);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd >= 0 && write(fd, driver.input.data, driver.input.len) < 0)
		perror(name);
}

static void driver_on_signal(int sig)
{
	driver_keep_input();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void driver_run(const uint8_t *data, size_t len)
{
	/* A copy of exactly its size, so that the sanitizer sees a read past its end. */
	uint8_t *exact = mem_dup(data, len);

	driver.input.len = 0;
	buf_append(&driver.input, data, len);
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
}

static void driver_add_file(const char *path)
{
	struct buf *b = &driver.samples[driver.n_samples];
	FILE *file = fopen(path, "rb");
	size_t n;

	if (!file || driver.n_samples == DRIVER_SAMPLES_MAX) {
		fprintf(stderr, "%s: %s\n", path, file ? "too many samples" : strerror(errno));
		exit(2);
	}
	n = fread(buf_reserve(b, DRIVER_INPUT_MAX), 1, DRIVER_INPUT_MAX, file);
	b->len = n;
	fclose(file);
	driver.n_samples++;
}

static int driver_by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void driver_add(const char *path)
{
	struct dirent **names;
	struct stat st;
	int n;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		driver_add_file(path);
		return;
	}
	/* Sorted: the order of a folder is no part of the seed. */
	n = scandir(path, &names, NULL, driver_by_name);
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			char *file = str_printf("%s/%s", path, names[i]->d_name);

			driver_add_file(file);
			free(file);
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static void driver_insert(struct buf *b, size_t at, const void *data, size_t len)
{
	struct buf copy = {0};

	if (b->len + len > DRIVER_INPUT_MAX)
		return;
	buf_append(&copy, data, len);
	buf_reserve(b, len);
	memmove(b->data + at + len, b->data + at, b->len - at);
	if (len)
		memcpy(b->data + at, copy.data, len);
	b->len += len;
	buf_free(&copy);
}

static void driver_delete(struct buf *b, size_t at, size_t len)
{
	memmove(b->data + at, b->data + at + len, b->len - at - len);
	b->len -= len;
}

/* Numbers at the edges of their types, in 1, 2, 4 bytes and both orders. */
static void driver_put_number(struct buf *b, uint64_t *rng)
{
	static const uint32_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
	uint32_t value = edges[driver_below(rng, sizeof(edges) / sizeof(edges[0]))];
	size_t size = (size_t)1 << driver_below(rng, 3), at;
	bool big_endian = driver_below(rng, 2);

	if (b->len < size)
		return;
	at = driver_below(rng, b->len - size + 1);
	for (size_t i = 0; i < size; i++)
		b->data[at + i] = (uint8_t)(value >> 8 * (big_endian ? size - 1 - i : i));
}

static void driver_change(struct buf *b, uint64_t *rng)
{
	const struct buf *other = &driver.samples[driver_below(rng, driver.n_samples)];
	size_t at = driver_below(rng, b->len + 1), span, from;
	uint8_t byte = (uint8_t)driver_random(rng);

	switch (driver_below(rng, 8)) {
	case 0:
		if (at < b->len)
			b->data[at] ^= (uint8_t)(1u << driver_below(rng, 8));
		break;
	case 1:
		if (at < b->len)
			b->data[at] = byte;
		break;
	case 2:
		driver_insert(b, at, &byte, 1);
		break;
	case 3:
		driver_delete(b, at, driver_below(rng, b->len - at < 16 ? b->len - at + 1 : 17));
		break;
	case 4:
		b->len = at;
		break;
	case 5: /* a piece of itself again */
		span = driver_below(rng, b->len - at < 64 ? b->len - at + 1 : 65);
		driver_insert(b, driver_below(rng, b->len + 1), b->data + at, span);
		break;
	case 6: /* a piece of another sample */
		from = driver_below(rng, other->len + 1);
		span = driver_below(rng, other->len - from < 256 ? other->len - from + 1 : 257);
		driver_insert(b, at, other->data + from, span);
		break;
	case 7:
		driver_put_number(b, rng);
		break;
	}
}

static void driver_iterate(uint64_t iteration)
{
	uint64_t rng = driver.seed * 0x100000001b3 ^ iteration;
	struct buf b = {0};
	const struct buf *sample;
	size_t changes;

	driver.iteration = iteration;
	driver_random(&rng);
	sample = &driver.samples[driver_below(&rng, driver.n_samples)];
	buf_reserve(&b, 1);
	buf_append(&b, sample->data, sample->len);
	changes = 1 + driver_below(&rng, DRIVER_CHANGES_MAX);
	while (changes--)
		driver_change(&b, &rng);
	driver_run(b.data, b.len);
	buf_free(&b);
}

static double driver_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void driver_run_samples(void)
{
	driver.unchanged = true;
	for (driver.iteration = 0; driver.iteration < driver.n_samples; driver.iteration++)
		driver_run(driver.samples[driver.iteration].data, driver.samples[driver.iteration].len);
	driver.unchanged = false;
}

static void driver_run_for(double seconds)
{
	double until = driver_now_s() + seconds;
	uint64_t i = 0;

	for (; driver_now_s() < until; i++)
		driver_iterate(i);
	printf("%s: seed %llu: %u samples, %llu changed inputs\n", driver.program, (unsigned long long)driver.seed,
	       driver.n_samples, (unsigned long long)i);
}

static void driver_free(void)
{
	for (unsigned i = 0; i < driver.n_samples; i++)
		buf_free(&driver.samples[i]);
	buf_free(&driver.input);
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	long long iteration = -1;
	double seconds = DRIVER_DEFAULT_S;

	driver.program = slash ? slash + 1 : argv[0];
	driver.seed = 1;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = atof(argv[++i]);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			driver.seed = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--iteration") == 0 && i + 1 < argc)
			iteration = atoll(argv[++i]);
		else
			driver_add(argv[i]);
	}
	if (!driver.n_samples) {
		fprintf(stderr, "usage: %s [--seconds N] [--seed N] [--iteration N] FOLDER|FILE...\n", driver.program);
		return 2;
	}
	printf("%s: seed %llu\n", driver.program, (unsigned long long)driver.seed);
	fflush(stdout);
	/* With sanitizers their callback sees every end; without, a signal is how it ends. */
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(driver_keep_input);
	signal(SIGABRT, driver_on_signal);
	if (!__sanitizer_set_death_callback)
		signal(SIGSEGV, driver_on_signal);
	if (iteration >= 0) {
		driver_iterate((uint64_t)iteration);
	} else {
		driver_run_samples();
		driver_run_for(seconds);
	}
	driver_free();
	return 0;
}
