package s3

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// metadataTimeout bounds each request to the instance metadata service: elsewhere than in a cloud its address swallows
// packets.
const metadataTimeout = 3 * time.Second

var (
	// errNoCredentials: nothing in the chain had any. An anonymous request would only come back as "access denied".
	errNoCredentials = errors.New("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
		"or write them to ~/.aws/credentials (AWS_PROFILE chooses the profile)")
	// errNotRenewed: there were some, and they have expired. That is no refusal: the next request asks for them again.
	errNotRenewed = errors.New("the credentials can't be renewed")
)

// credentials come from the environment, the shared file, and last, on AWS or when asked for, the instance.
func (c Config) credentials() *credentials.Credentials {
	r := &required{Chain: credentials.Chain{Providers: []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}}}
	if c.aws() || c.Instance {
		r.instance.IAM = &credentials.IAM{Client: &http.Client{Timeout: metadataTimeout}, Endpoint: c.metadata}
		r.Providers = append(r.Providers, &r.instance)
	}
	return credentials.New(r)
}

// required is a chain that does not fall back to anonymous requests. Its user holds a lock.
type required struct {
	credentials.Chain
	instance instance
	had      bool
}

func (r *required) Retrieve() (credentials.Value, error) { return r.require(r.Chain.Retrieve()) }

func (r *required) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	return r.require(r.Chain.RetrieveWithCredContext(cc))
}

func (r *required) require(v credentials.Value, err error) (credentials.Value, error) {
	if err != nil || v.SignerType != credentials.SignatureAnonymous {
		r.had = r.had || err == nil
		return v, err
	}
	if err = errNoCredentials; r.had {
		err = errNotRenewed
	}
	if r.instance.err != nil {
		err = fmt.Errorf("%w: instance metadata: %w", err, r.instance.err)
	}
	return v, err
}

// instance remembers why there were no credentials, which a chain does not tell.
type instance struct {
	*credentials.IAM
	err error
}

func (i *instance) Retrieve() (v credentials.Value, err error) {
	v, i.err = i.IAM.Retrieve()
	return v, i.err
}

func (i *instance) RetrieveWithCredContext(cc *credentials.CredContext) (v credentials.Value, err error) {
	v, i.err = i.IAM.RetrieveWithCredContext(cc)
	return v, i.err
}
