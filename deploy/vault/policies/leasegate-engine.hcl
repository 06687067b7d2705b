# The engine service: mounts and their connections, and nothing else. One set of the rules that name a mount is made for
# each.

# Reads the owners of the mount, enables it as a database secrets engine, and disables it. (The type limits what is enabled; deleting
# cannot be limited by it.)
path "sys/mounts/<mount>" {
  capabilities = ["read", "update", "delete"]
  allowed_parameters = {
    "type" = ["database"]
    "description" = []
  }
}

# Writes the owners of the mount into its description.
path "sys/mounts/<mount>/tune" {
  capabilities = ["update"]
  allowed_parameters = {
    "description" = []
  }
}

# Connections to databases.
path "<mount>/config/*" {
  capabilities = ["create", "read", "update", "delete"]
}

# Renews and revokes its session.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
