/* The rules of the lease, one by one, over a real folder. The races are in test_lease_model.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage/lease.h"
#include "storage/lease_record.h"
#include "tests/unit/temp_folder.h"

static char folder[64];
static struct pool_fs *fs;
static struct err err;

static int open_pool(void **state)
{
	Gantry__Pool pool = GANTRY__POOL__INIT;

	temp_folder_make(folder, sizeof(folder));
	pool.name = (char *)"fast";
	pool.target = folder;
	return pool_fs_open(&pool, &fs, &err);
}

static int close_pool(void **state)
{
	pool_fs_close(fs);
	temp_folder_remove(folder);
	return 0;
}

static struct lease_id id_of(const char *host, uint64_t generation)
{
	return (struct lease_id){.volume = "disk", .host = host, .domain_uuid = "d-1", .domain_name = "web1", .generation = generation};
}

static int take(const char *host, uint64_t generation)
{
	struct lease_id id = id_of(host, generation);

	return lease_acquire(fs, &id, NULL, &err);
}

static int take_breaking(const char *host, uint64_t generation, const char *dead, uint64_t dead_generation)
{
	struct lease_id id = id_of(host, generation);

	return lease_acquire(fs, &id, &(struct lease_break){.host = dead, .generation = dead_generation, .proof = "off"}, &err);
}

static int renew(const char *host, uint64_t generation)
{
	struct lease_id id = id_of(host, generation);

	return lease_renew(fs, &id, &err);
}

static int release(const char *host, uint64_t generation)
{
	struct lease_id id = id_of(host, generation);

	return lease_release(fs, &id, &err);
}

static int hand_over(const char *host, uint64_t generation, const char *next, uint64_t next_generation)
{
	struct lease_id id = id_of(host, generation);

	return lease_hand_over(fs, &id, next, next_generation, &err);
}

static void assert_described(const char *part)
{
	struct buf text = {0};

	assert_int_equal(lease_describe(fs, "disk", &text, &err), 0);
	if (!strstr(buf_str(&text), part))
		fail_msg("'%s' is not in '%s'", part, buf_str(&text));
	buf_free(&text);
}

/* A record as another host's crash may have left it. */
static void put(const char *host, uint64_t generation, uint64_t incarnation, enum lease_state state)
{
	struct lease_record r = {.owner.generation = generation, .incarnation = incarnation, .state = state};
	char name[LEASE_FILE_CHARS + 1], content[LEASE_RECORD_BYTES], path[300];

	pool_fs_mkdir(fs, ".gantry", NULL);
	pool_fs_mkdir(fs, ".gantry/disk", NULL);
	strcpy(r.owner.host, host);
	strcpy(r.uuid, "d-1");
	lease_record_name(&r, name);
	lease_record_format(&r, content);
	snprintf(path, sizeof(path), ".gantry/disk/%s", name);
	assert_int_equal(pool_fs_create(fs, path, content, sizeof(content), &err), 0);
}

static size_t count_records(void)
{
	char **names;
	size_t n;

	assert_int_equal(pool_fs_list(fs, ".gantry/disk", &names, &n, &err), 0);
	pool_fs_free_list(names, n);
	return n;
}

/* Spoils every record there is: what a torn write leaves. */
static void tear_records(void)
{
	char **names, path[400];
	size_t n;

	assert_int_equal(pool_fs_list(fs, ".gantry/disk", &names, &n, &err), 0);
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), ".gantry/disk/%s", names[i]);
		assert_int_equal(pool_fs_overwrite(fs, path, "gantry-lease 1 0000", 19, &err), 0);
	}
	pool_fs_free_list(names, n);
}

static void test_refusal_names_holder_domain_and_generation(void **state)
{
	assert_int_equal(take("hostA", 3), 0);
	assert_described("held by hostA for domain web1 (generation 3)");
	assert_int_equal(take("hostB", 4), -EBUSY);
	assert_non_null(strstr(err.text, "'disk' is held by hostA"));
	assert_non_null(strstr(err.text, "'web1' (generation 3"));
	assert_int_equal(renew("hostA", 3), 0); /* a refused claim harms nobody */
	assert_int_equal(renew("hostB", 4), -ESTALE);
}

static void test_released_lease_is_free_for_the_next_generation(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(release("hostA", 1), 0);
	assert_int_equal(release("hostA", 1), 0);
	assert_int_equal(renew("hostA", 1), -ESTALE);
	assert_described("free");
	assert_int_equal(take("hostB", 2), 0);
	assert_int_equal(take("hostA", 1), -ESTALE);
	assert_non_null(strstr(err.text, "hostB has generation 2"));
}

static void test_taking_what_we_have_is_no_change(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(renew("hostA", 1), 0);
	assert_int_equal(count_records(), 1);
	assert_int_equal(take("hostB", 2), -EBUSY);
	assert_int_equal(release("hostA", 1), 0);
	assert_int_equal(take("hostB", 2), 0);
}

static void test_hand_over_is_for_one_host_and_generation(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(hand_over("hostA", 1, "hostB", 2), 0);
	assert_int_equal(hand_over("hostA", 1, "hostB", 2), 0);
	assert_described("handed over by hostA");
	assert_int_equal(renew("hostA", 1), -ESTALE);
	assert_int_equal(take("hostC", 2), -EBUSY);
	assert_int_equal(take("hostB", 3), -EBUSY);
	assert_int_equal(take("hostB", 2), 0);
	assert_int_equal(take("hostA", 1), -ESTALE);
	assert_int_equal(hand_over("hostA", 1, "hostC", 3), -ESTALE);
}

static void test_hand_over_is_undone_by_taking_back(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(hand_over("hostA", 1, "hostB", 2), 0);
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(renew("hostA", 1), 0);
	assert_int_equal(take("hostB", 2), -EBUSY);
	assert_int_equal(hand_over("hostA", 1, "hostC", 2), 0);
	assert_int_equal(take("hostB", 2), -EBUSY);
	assert_int_equal(take("hostC", 2), 0);
}

static void test_only_what_was_proven_is_broken(void **state)
{
	assert_int_equal(take("hostA", 5), 0);
	assert_int_equal(take_breaking("hostB", 6, "hostC", 5), -EBUSY);
	assert_int_equal(take_breaking("hostB", 6, "hostA", 4), -EBUSY);
	assert_int_equal(take_breaking("hostB", 6, "hostA", 5), 0);
	assert_int_equal(renew("hostA", 5), -ESTALE);
	assert_int_equal(take_breaking("hostA", 5, "hostB", 6), -ESTALE);
}

/* hostB died before it held: who breaks hostB may also pass hostA, whom hostB was allowed to break. */
static void test_proof_given_to_an_earlier_taker_counts(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	put("hostX", 9, 7, LEASE_CLAIM); /* makes the next taking fail after its claim */
	assert_int_equal(take_breaking("hostB", 2, "hostA", 1), -ESTALE);
	assert_int_equal(pool_fs_remove(fs, ".gantry/disk/lease.9.7.d-1.hostX", &err), 0);
	assert_int_equal(take("hostB", 2), 0);
}

static void test_handed_to_one_who_was_proven_dead(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(hand_over("hostA", 1, "hostB", 2), 0);
	assert_int_equal(take("hostC", 3), -EBUSY);
	assert_int_equal(take_breaking("hostC", 3, "hostB", 2), 0);
	assert_int_equal(take("hostA", 1), -ESTALE);
}

/* A claim that is given up says nothing about those before it. */
static void test_released_claim_does_not_settle_the_holder(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	put("hostB", 2, 7, LEASE_CLAIM);
	assert_int_equal(release("hostB", 2), 0);
	assert_int_equal(take("hostC", 3), -EBUSY);
	assert_non_null(strstr(err.text, "held by hostA"));
	assert_int_equal(renew("hostA", 1), 0);
}

static void test_leftovers_of_settled_generations_are_passed(void **state)
{
	put("hostA", 1, 7, LEASE_HELD);
	put("hostB", 2, 7, LEASE_HELD);
	put("hostB", 2, 8, LEASE_RELEASED);
	assert_described("free");
	assert_int_equal(take("hostC", 3), 0);
	assert_int_equal(renew("hostC", 3), 0);
	assert_int_equal(count_records(), 1);
}

static void test_torn_record_counts_as_held(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	tear_records();
	assert_int_equal(take("hostB", 2), -EBUSY);
	assert_non_null(strstr(err.text, "not readable"));
	assert_int_equal(renew("hostA", 1), -EIO); /* not -ESTALE: the domain lives on */
	assert_int_equal(lease_remove_all(fs, "disk", &err), -EBUSY);
	assert_int_equal(take_breaking("hostB", 2, "hostA", 1), 0);
}

static void test_torn_record_is_healed_by_taking_again(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	tear_records();
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(renew("hostA", 1), 0);
	assert_int_equal(release("hostA", 1), 0);
	assert_int_equal(take("hostB", 2), 0);
}

static void test_generations_of_another_domain_are_not_compared(void **state)
{
	struct lease_id other = {.volume = "disk", .host = "hostB", .domain_uuid = "d-2", .domain_name = "db1", .generation = 1};

	assert_int_equal(take("hostA", 7), 0);
	assert_int_equal(lease_acquire(fs, &other, NULL, &err), -EBUSY);
	assert_int_equal(lease_acquire(fs, &other, &(struct lease_break){.host = "hostA", .generation = 7}, &err), -EBUSY);
	assert_int_equal(release("hostA", 7), 0);
	assert_int_equal(lease_acquire(fs, &other, NULL, &err), 0);
	assert_int_equal(take("hostA", 8), -EBUSY);
	assert_non_null(strstr(err.text, "db1"));
	assert_int_equal(lease_renew(fs, &other, &err), 0);
	assert_int_equal(lease_release(fs, &other, &err), 0);
	assert_int_equal(take("hostA", 8), 0);
}

static void test_retries_do_not_fill_the_folder(void **state)
{
	assert_int_equal(take("hostA", 1), 0);
	for (int i = 0; i < 50; i++)
		assert_int_equal(take("hostB", 2), -EBUSY);
	assert_true(count_records() <= 3);
}

static void test_clock_that_went_back_does_not_matter(void **state)
{
	put("hostA", 1, UINT64_MAX / 2, LEASE_HANDED);
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(renew("hostA", 1), 0);
	assert_int_equal(take("hostB", 2), -EBUSY);
}

static void test_records_go_with_the_volume(void **state)
{
	assert_int_equal(lease_remove_all(fs, "disk", &err), 0);
	assert_int_equal(take("hostA", 1), 0);
	assert_int_equal(lease_remove_all(fs, "disk", &err), -EBUSY);
	assert_non_null(strstr(err.text, "hostA"));
	assert_int_equal(release("hostA", 1), 0);
	assert_int_equal(lease_remove_all(fs, "disk", &err), 0);
	assert_int_equal(pool_fs_exists(fs, ".gantry/disk", NULL, NULL), -ENOENT);
	assert_int_equal(renew("hostA", 1), -ESTALE);
	assert_int_equal(take("hostB", 1), 0);
}

static void test_bad_names_are_refused(void **state)
{
	struct lease_id id = {.volume = "../x", .host = "hostA", .domain_uuid = "d-1", .generation = 1};

	assert_int_equal(lease_acquire(fs, &id, NULL, &err), -EINVAL);
	assert_int_equal(take("host/A", 1), -EINVAL);
	assert_int_equal(take("", 1), -EINVAL);
	assert_int_equal(take("hostA", 0), -EINVAL);
}

static void test_record_survives_its_way_through_the_file(void **state)
{
	struct lease_record r = {.state = LEASE_HANDED, .next = {"hostB", UINT64_MAX}, .breaks = {"hostC", 1}, .time_ms = 5, .renewals = 6}, got = {0};
	char content[LEASE_RECORD_BYTES];

	memset(r.next.host, 'n', LIMIT_LEASE_HOST_CHARS);
	memset(r.breaks.host, 'b', LIMIT_LEASE_HOST_CHARS);
	memset(r.proof, 'p', sizeof(r.proof) - 1);
	memset(r.domain_name, 'd', sizeof(r.domain_name) - 1);
	r.breaks.generation = r.time_ms = r.renewals = UINT64_MAX;
	lease_record_format(&r, content);
	lease_record_parse(content, sizeof(content), &got);
	assert_true(got.readable);
	r.readable = true;
	assert_memory_equal(&r, &got, sizeof(r));
	for (size_t i = 0; i < sizeof(content); i++) {
		content[i] ^= 1;
		lease_record_parse(content, sizeof(content), &got);
		assert_false(got.readable);
		assert_int_equal(got.state, LEASE_CLAIM);
		content[i] ^= 1;
	}
	lease_record_parse(content, sizeof(content) - 1, &got);
	assert_false(got.readable);
}

static void test_names_of_records(void **state)
{
	static const char *const bad[] = {"lease.1.2.u", "lease.01.2.u.h", "lease.x.2.u.h", "lease.1.2.u.", "lease.1.2..h", "lease.1.2.u.h/x",
					  "lease.99999999999999999999.1.u.h", "Lease.1.2.u.h", "lease.1.2.u.a b", ""};
	struct lease_record r;
	char name[LEASE_FILE_CHARS + 1];

	assert_true(lease_record_parse_name("lease.18446744073709551615.2.0f-1.host.a", &r));
	assert_true(r.owner.generation == UINT64_MAX && r.incarnation == 2);
	assert_string_equal(r.owner.host, "host.a");
	lease_record_name(&r, name);
	assert_string_equal(name, "lease.18446744073709551615.2.0f-1.host.a");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (lease_record_parse_name(bad[i], &r))
			fail_msg("'%s' was taken for a record", bad[i]);
}

#define WITH_POOL(f) cmocka_unit_test_setup_teardown(f, open_pool, close_pool)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_POOL(test_refusal_names_holder_domain_and_generation),
		WITH_POOL(test_released_lease_is_free_for_the_next_generation),
		WITH_POOL(test_taking_what_we_have_is_no_change),
		WITH_POOL(test_hand_over_is_for_one_host_and_generation),
		WITH_POOL(test_hand_over_is_undone_by_taking_back),
		WITH_POOL(test_only_what_was_proven_is_broken),
		WITH_POOL(test_proof_given_to_an_earlier_taker_counts),
		WITH_POOL(test_handed_to_one_who_was_proven_dead),
		WITH_POOL(test_released_claim_does_not_settle_the_holder),
		WITH_POOL(test_leftovers_of_settled_generations_are_passed),
		WITH_POOL(test_torn_record_counts_as_held),
		WITH_POOL(test_torn_record_is_healed_by_taking_again),
		WITH_POOL(test_generations_of_another_domain_are_not_compared),
		WITH_POOL(test_retries_do_not_fill_the_folder),
		WITH_POOL(test_clock_that_went_back_does_not_matter),
		WITH_POOL(test_records_go_with_the_volume),
		WITH_POOL(test_bad_names_are_refused),
		cmocka_unit_test(test_record_survives_its_way_through_the_file),
		cmocka_unit_test(test_names_of_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
