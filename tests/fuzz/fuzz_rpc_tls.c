/* A stranger at the TLS port: whatever he says first, the server's session answers or fails with a text, and never lets
 * him in. The sample is a ClientHello of ours; a finished handshake cannot come of a changed one. */
#include <stdint.h>
#include <stdlib.h>
#include <openssl/pem.h>

#include "lib/limits.h"
#include "proto/rpc_tls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Once per process: making keys is slow. The sanitizer finds them through this pointer. */
static struct tls_context *fuzz_context;

static void fuzz_set_up(void)
{
	struct buf ca = {0}, ca_key = {0}, csr = {0}, key = {0}, cert = {0};
	BIO *bio;
	X509 *x;
	EVP_PKEY *k;

	if (tls_context_for_join("0000000000000000000000000000000000000000000000000000000000000000", &fuzz_context, NULL) < 0 ||
	    pki_make_ca("c", "u", &ca, &ca_key, NULL) < 0 || pki_make_request("h", &csr, &key, NULL) < 0 ||
	    pki_sign(&ca, &ca_key, &csr, "h", "u", &cert, NULL) < 0)
		abort();
	bio = BIO_new_mem_buf(cert.data, (int)cert.len);
	x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	BIO_free(bio);
	bio = BIO_new_mem_buf(key.data, (int)key.len);
	k = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	BIO_free(bio);
	if (SSL_CTX_use_certificate(fuzz_context->ctx, x) != 1 || SSL_CTX_use_PrivateKey(fuzz_context->ctx, k) != 1)
		abort();
	X509_free(x);
	EVP_PKEY_free(k);
	buf_free(&ca);
	buf_free(&ca_key);
	buf_free(&csr);
	buf_free(&key);
	buf_free(&cert);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rpc_tls *server = NULL;
	struct buf out = {0};
	struct err err = {0};
	bool can_refuse = true;
	int rc;

	if (!fuzz_context)
		fuzz_set_up();
	if (rpc_tls_new(fuzz_context, true, true, NULL, "fuzz", &out, &server, &err) < 0)
		abort();
	rpc_tls_input(server, data, size);
	rc = rpc_tls_handshake(server, &can_refuse, &err);
	if (rc > 0 || can_refuse || (rc < 0) != (err.text[0] != '\0') || out.len > LIMIT_RPC_QUEUE_BYTES)
		abort();
	rpc_tls_goodbye(server);
	rpc_tls_free(server);
	buf_free(&out);
	return 0;
}
