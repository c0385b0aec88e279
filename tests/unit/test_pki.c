/* The CA: what it signs and what not, and the errors of contexts. */
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "tests/unit/pki_fixture.h"

static void test_bad_fingerprints(void **state)
{
	struct tls_context *join = NULL;
	struct err err = {0};
	char hex[80];

	assert_int_equal(tls_context_for_join("", &join, &err), -EINVAL);
	assert_int_equal(tls_context_for_join("abc", &join, &err), -EINVAL);
	snprintf(hex, sizeof(hex), "%s0", pki.fingerprint1);
	assert_int_equal(tls_context_for_join(hex, &join, &err), -EINVAL);
	hex[10] = 'g';
	hex[64] = '\0';
	assert_int_equal(tls_context_for_join(hex, &join, &err), -EINVAL);
	assert_null(join);
}

static X509 *read_cert(const struct buf *pem)
{
	BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

	BIO_free(bio);
	return cert;
}

/* What the request asks for beyond its key counts for nothing. */
static void test_sign_ignores_the_requests_wishes(void **state)
{
	struct buf csr = {0}, key = {0}, cert = {0};
	char *host = NULL, *uuid = NULL;
	X509 *x;

	assert_int_equal(pki_make_request("evil", &csr, &key, NULL), 0);
	assert_int_equal(pki_sign(&pki.ca1, &pki.ca1_key, &csr, "hostD", UUID_ONE, &cert, NULL), 0);
	x = read_cert(&cert);
	assert_int_equal(pki_certificate_names(x, &host, &uuid, NULL), 0);
	assert_string_equal(host, "hostD");
	assert_string_equal(uuid, UUID_ONE);
	assert_int_equal(X509_check_ca(x), 0);
	assert_int_equal(X509_check_host(x, "evil", 4, 0, NULL), 0);
	X509_free(x);
	free(host);
	free(uuid);
	buf_free(&csr);
	buf_free(&key);
	buf_free(&cert);
}

static void test_sign_refuses(void **state)
{
	struct buf csr = {0}, key = {0}, cert = {0}, junk = {0};
	struct err err = {0};

	buf_append(&junk, "junk", 4);
	assert_int_equal(pki_make_request("hostD", &csr, &key, NULL), 0);
	assert_int_equal(pki_sign(&pki.ca1, &pki.ca1_key, &junk, "hostD", UUID_ONE, &cert, &err), -EINVAL);
	assert_int_equal(pki_sign(&pki.ca1, &pki.ca2_key, &csr, "hostD", UUID_ONE, &cert, &err), -EIO);
	assert_int_equal(pki_sign(&junk, &pki.ca1_key, &csr, "hostD", UUID_ONE, &cert, &err), -EIO);
	assert_int_equal(pki_sign(&pki.ca1, &pki.ca1_key, &csr, "host D,DNS:other", UUID_ONE, &cert, &err), -EINVAL);
	assert_int_equal(pki_make_request("", &cert, &cert, &err), -EINVAL);
	assert_int_equal(cert.len, 0);
	buf_free(&csr);
	buf_free(&key);
	buf_free(&junk);
}

static void test_load_names_the_file(void **state)
{
	struct tls_context *tls = NULL;
	struct err err = {0};

	assert_int_equal(tls_context_load("/nowhere/ca.crt", "/nowhere/host.crt", "/nowhere/host.key", &tls, &err), -ENOENT);
	assert_non_null(strstr(err.text, "certificate /nowhere/host.crt cannot be used: No such file"));
	const char *key = put("host.key", &pki.ca1_key), *cert = put("host.crt", &pki.ca1);
	assert_true(tls_context_load(cert, key, key, &tls, &err) < 0);
	assert_non_null(strstr(err.text, "host.key"));
	/* A CA's own certificate is not that of a host. */
	assert_int_equal(tls_context_load(cert, cert, key, &tls, &err), -EACCES);
	assert_null(tls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_fingerprints),
		cmocka_unit_test(test_sign_ignores_the_requests_wishes),
		cmocka_unit_test(test_sign_refuses),
		cmocka_unit_test(test_load_names_the_file),
	};
	return cmocka_run_group_tests(tests, pki_set_up, pki_tear_down);
}
