# The role service: database roles, and nothing else. One set of the rules that name a mount is made for
# each.

# Reads the owners of the mount.
path "sys/mounts/<mount>" {
  capabilities = ["read"]
}

# Database roles, the cleanup roles included.
path "<mount>/roles/*" {
  capabilities = ["create", "read", "update", "delete"]
}

# Narrows a team's session, which has this policy and leasegate-engine, to this policy alone.
path "auth/token/create" {
  capabilities = ["update"]
  allowed_parameters = {
    "policies" = [["leasegate-roles"]]
    "no_default_policy" = [true]
  }
}

# Renews and revokes its session.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
