"""Between noise and data: interpolants, their curves and sigmas, and the noise laws along them."""
