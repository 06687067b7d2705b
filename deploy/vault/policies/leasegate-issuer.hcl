# The token of one attempt: reads one credential. One rule is made for each mount.

path "<mount>/creds/*" {
  capabilities = ["read"]
}
