// Asks questions and prints how each ended, with nothing of Sluicegate; its settings stand in docs/producing.md.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var set, requests = os.Getenv, os.Getenv("SG_TENANT") + ".requests"

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func hashed(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// The headers that prove a request: the service's signature over what it sends, where, when, and for whom.
func proof(value []byte) (headers []kgo.RecordHeader) {
	claims := map[string]any{"iss": set("SG_SERVICE"), "aud": "urn:sluicegate:" + set("SG_ENV") + ":" + requests,
		"key": set("SG_PRINCIPAL"), "bh": hashed(value), "iat": time.Now().Unix(), "jti": rand.Text()}
	if token := []byte(set("SG_TOKEN")); len(token) > 0 {
		claims["ath"] = hashed(token)
		headers = append(headers, kgo.RecordHeader{Key: "sg-token", Value: token})
	}
	block, _ := pem.Decode(must(os.ReadFile(set("SG_KEY_FILE"))))
	key := jose.JSONWebKey{Key: must(x509.ParsePKCS8PrivateKey(block.Bytes)), KeyID: set("SG_KEY_ID")}
	options, signing := (&jose.SignerOptions{}).WithType("sg-proof+jwt"), jose.SigningKey{Algorithm: jose.EdDSA, Key: key}
	signed := must(must(jose.NewSigner(signing, options)).Sign(must(json.Marshal(claims))))
	return append(headers, kgo.RecordHeader{Key: "sg-proof", Value: []byte(must(signed.CompactSerialize()))})
}

func main() {
	time.AfterFunc(time.Minute, func() { panic("no release within a minute; ask again with the same request_id") })
	asked := must(avro.Parse(string(must(os.ReadFile(set("SG_SCHEMAS") + "/RequestSubmitted.v1.avsc")))))
	answered := must(avro.Parse(string(must(os.ReadFile(set("SG_SCHEMAS") + "/ReleaseMade.v1.avsc")))))
	client := must(kgo.NewClient(kgo.SeedBrokers(set("SG_BOOTSTRAP"))))
	ctx, questions, sent, ended := context.Background(), os.Args[1:], map[any]bool{}, map[any]bool{}
	replies, refusals := set("SG_TENANT")+".replies."+set("SG_REPLIES"), set("SG_TENANT")+".refusals"
	client.AddConsumePartitions(must(kadm.NewClient(client).ListEndOffsets(ctx, replies, refusals)).KOffsets()) // no group
	for _, question := range questions {
		request := map[string]any{"request_id": rand.Text(), "model": set("SG_MODEL"), "purpose": set("SG_PURPOSE")}
		request["messages"] = []map[string]any{{"role": "user", "content": question}}
		value := must(asked.AppendSingleObject(nil, request))
		record := &kgo.Record{Topic: requests, Key: []byte(set("SG_PRINCIPAL")), Value: value, Headers: proof(value)}
		placed := must(client.ProduceSync(ctx, record).First())
		sent[request["request_id"]], sent[fmt.Sprint(placed.Partition, placed.Offset)] = true, true
	}
	for len(ended) < len(questions) {
		for _, record := range client.PollFetches(ctx).Records() {
			release := map[string]any{}
			must(answered.DecodeSingleObject(record.Value, &release))
			id, place := release["release_id"], fmt.Sprint(record.Partition, release["request_offset"])
			if (sent[release["request_id"]] || sent[place] && release["code"] != "PROOF_REPLAYED") && !ended[id] {
				ended[id] = true // a copy comes at least once
				fmt.Println(release["outcome"], release["code"], cmp.Or(release["text"], release["reason"]))
			}
		}
	}
}
